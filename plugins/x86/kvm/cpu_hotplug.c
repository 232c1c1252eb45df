#include "cpu_hotplug.h"

#include <stdlib.h>
#include <string.h>

#include "run.h"

/* The first register is the selector when written, data 2 when read. */
enum { SELECTOR_OR_DATA2 = 0, FLAGS = 4, COMMAND = 5, DATA = 8 };
enum { NEXT_WITH_EVENT, OST_EVENT, OST_STATUS, ARCH_ID };
enum { EVENTS = CPUFW_CPU_INSERT | CPUFW_CPU_REMOVE, BOOT_CPU = 0 };

struct cpufw_cpu_hotplug *cpufw_cpu_hotplug_new(uint32_t count, const uint64_t *arch_ids)
{
    struct cpufw_cpu_hotplug *block =
        calloc(1, sizeof *block + count * sizeof(struct cpufw_cpu_slot));
    if (!block)
        return NULL;
    pthread_mutex_init(&block->lock, NULL);
    block->count = count;
    for (uint32_t i = 0; i < count; i++)
        block->slots[i].arch_id = arch_ids[i];
    return block;
}

void cpufw_cpu_hotplug_free(struct cpufw_cpu_hotplug *block)
{
    pthread_mutex_destroy(&block->lock);
    free(block);
}

/* ---- the guest's side ---- */

static uint32_t read_locked(const struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size)
{
    if (block->selector >= block->count)
        return 0;
    const struct cpufw_cpu_slot *slot = &block->slots[block->selector];
    if (offset == FLAGS && size == 1)
        return slot->flags;
    if (offset == DATA && size == 4 && block->command == NEXT_WITH_EVENT)
        return block->selector;
    if (offset == DATA && size == 4 && block->command == ARCH_ID)
        return slot->arch_id;
    if (offset == SELECTOR_OR_DATA2 && size == 4 && block->command == ARCH_ID)
        return slot->arch_id >> 32;
    return 0;
}

uint32_t cpufw_cpu_hotplug_read(struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size)
{
    pthread_mutex_lock(&block->lock);
    uint32_t value = read_locked(block, offset, size);
    pthread_mutex_unlock(&block->lock);
    return value;
}

/* What a write would be; the registers stay as they are. */
static int kind_of_write(const struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size,
                         uint32_t value)
{
    if (block->selector >= block->count)
        return CPUFW_CPU_NOTHING;
    uint8_t flags = block->slots[block->selector].flags;
    if (offset == FLAGS && size == 1 && value & CPUFW_CPU_EJECT && flags & CPUFW_CPU_ENABLED &&
        block->selector != BOOT_CPU)
        return CPUFW_CPU_EJECTED;
    if (offset == DATA && size == 4 && block->command == OST_STATUS)
        return CPUFW_CPU_OST;
    return CPUFW_CPU_NOTHING;
}

/* The next slot with an event, from the selected one on and round the end. */
static void select_event(struct cpufw_cpu_hotplug *block)
{
    uint32_t index = block->selector;
    for (uint32_t left = block->count; left; left--) {
        if (block->slots[index].flags & EVENTS) {
            block->selector = index;
            return;
        }
        index = index + 1 == block->count ? 0 : index + 1;
    }
}

static void write_locked(struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size,
                         uint32_t value, int kind)
{
    if (offset == SELECTOR_OR_DATA2 && size == 4)
        block->selector = value;
    if (block->selector >= block->count)
        return;
    struct cpufw_cpu_slot *slot = &block->slots[block->selector];
    if (offset == FLAGS && size == 1) {
        slot->flags &= ~(value & EVENTS);
        if (kind == CPUFW_CPU_EJECTED)
            slot->flags = 0;
        else if (value & CPUFW_CPU_FIRMWARE_EJECT && slot->flags & CPUFW_CPU_ENABLED &&
                 block->selector != BOOT_CPU)
            slot->flags |= CPUFW_CPU_FIRMWARE_EJECT;
    } else if (offset == COMMAND && size == 1) {
        block->command = value;
        if (block->command == NEXT_WITH_EVENT)
            select_event(block);
    } else if (offset == DATA && size == 4) {
        if (block->command == OST_EVENT)
            slot->ost_event = value;
        else if (block->command == OST_STATUS)
            slot->ost_status = value;
    }
}

int cpufw_cpu_hotplug_write(struct cpufw_cpu_hotplug *block, uint64_t offset, unsigned size,
                            uint32_t value, uint32_t *slot)
{
    pthread_mutex_lock(&block->lock);
    int kind = kind_of_write(block, offset, size, value);
    write_locked(block, offset, size, value, kind);
    *slot = block->selector;
    pthread_mutex_unlock(&block->lock);
    return kind;
}

/* ---- the run loop's side ---- */

static int serve_read(void *device, uint64_t offset, unsigned size, uint8_t *data)
{
    uint32_t value = cpufw_cpu_hotplug_read(device, offset, size);
    for (unsigned i = 0; i < size; i++)
        data[i] = value >> 8 * i;
    return CPUFW_DEVICE_DONE;
}

static int serve_write(void *device, uint64_t offset, unsigned size, const uint8_t *data)
{
    struct cpufw_cpu_hotplug *block = device;
    uint32_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)data[i] << 8 * i;
    pthread_mutex_lock(&block->lock);
    int kind = kind_of_write(block, offset, size, value);
    if (kind == CPUFW_CPU_NOTHING)
        write_locked(block, offset, size, value, kind);
    pthread_mutex_unlock(&block->lock);
    return kind == CPUFW_CPU_NOTHING ? CPUFW_DEVICE_DONE : CPUFW_DEVICE_PASS;
}

const struct cpufw_device_ops *cpufw_cpu_hotplug_ops(void)
{
    static const struct cpufw_device_ops ops = {serve_read, serve_write};
    return &ops;
}

/* ---- the machine's side ---- */

struct cpufw_cpu_slot cpufw_cpu_hotplug_slot(struct cpufw_cpu_hotplug *block, uint32_t slot)
{
    pthread_mutex_lock(&block->lock);
    struct cpufw_cpu_slot copy = block->slots[slot];
    pthread_mutex_unlock(&block->lock);
    return copy;
}

uint8_t cpufw_cpu_hotplug_change(struct cpufw_cpu_hotplug *block, uint32_t slot, uint8_t needed,
                                 uint8_t clear, uint8_t set)
{
    pthread_mutex_lock(&block->lock);
    uint8_t *flags = &block->slots[slot].flags, before = *flags;
    if ((before & needed) == needed)
        *flags = (before & ~clear) | set;
    pthread_mutex_unlock(&block->lock);
    return before;
}
