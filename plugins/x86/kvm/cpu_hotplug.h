/* The CPU hot-plug register block, served in the run loop but for what Python must hear of.
 * Source: QEMU docs/specs/acpi_cpu_hotplug, the modern interface. */
#ifndef CPUFW_CPU_HOTPLUG_H
#define CPUFW_CPU_HOTPLUG_H

#include <pthread.h>
#include <stdint.h>

enum {
    CPUFW_CPU_ENABLED = 1 << 0,
    CPUFW_CPU_INSERT = 1 << 1,
    CPUFW_CPU_REMOVE = 1 << 2,
    CPUFW_CPU_EJECT = 1 << 3,
    CPUFW_CPU_FIRMWARE_EJECT = 1 << 4,
};

/* What a write by the guest was, beyond a change of registers. */
enum { CPUFW_CPU_NOTHING, CPUFW_CPU_EJECTED, CPUFW_CPU_OST };

struct cpufw_cpu_slot {
    uint64_t arch_id;
    uint8_t flags;
    uint32_t ost_event, ost_status;
};

/* All of it is guest-visible state: to be saved and loaded while no vCPU runs. */
struct cpufw_cpu_hotplug {
    pthread_mutex_t lock;
    uint8_t command;
    uint32_t selector;
    uint32_t count;
    struct cpufw_cpu_slot slots[];
};

/* Reads and writes as the run loop makes them; what it cannot do alone it passes on (run.h). */
const struct cpufw_device_ops *cpufw_cpu_hotplug_ops(void);

/* A block of `count` slots, which are empty. NULL: no memory. */
struct cpufw_cpu_hotplug *cpufw_cpu_hotplug_new(uint32_t count, const uint64_t *arch_ids);
void cpufw_cpu_hotplug_free(struct cpufw_cpu_hotplug *block);

/* An access by the guest. A write says what it was and leaves the slot it was to in `slot`. */
uint32_t cpufw_cpu_hotplug_read(struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size);
int cpufw_cpu_hotplug_write(struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size,
                            uint32_t value, uint32_t *slot);

/* A copy of a slot's registers. */
struct cpufw_cpu_slot cpufw_cpu_hotplug_slot(struct cpufw_cpu_hotplug *block, uint32_t slot);
/* Clears and sets flags where all `needed` ones are set. Returns the flags before. */
uint8_t cpufw_cpu_hotplug_change(struct cpufw_cpu_hotplug *block, uint32_t slot, uint8_t needed,
                                 uint8_t clear, uint8_t set);

#endif
