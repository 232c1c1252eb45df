/* The vCPU run loop and the devices it serves without going back to Python. */
#ifndef CPUFW_RUN_H
#define CPUFW_RUN_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* What a device answers to an access; the bits can be combined. */
enum {
    CPUFW_DEVICE_DONE = 0,
    CPUFW_DEVICE_READY = 1, /* done, and Python should now collect the output */
    CPUFW_DEVICE_FULL = 2,  /* not done: Python must collect first, then try again */
    CPUFW_DEVICE_PASS = 4,  /* not done, a write only: Python serves it, as an exit */
};

struct cpufw_device_ops {
    int (*read)(void *device, uint64_t offset, unsigned size, uint8_t *data);
    int (*write)(void *device, uint64_t offset, unsigned size, const uint8_t *data);
    /* May be NULL: the vCPU is called out of the guest and cannot wait for room, so the next write
     * must not answer CPUFW_DEVICE_FULL. */
    void (*overflow)(void *device);
};

enum { CPUFW_SPACE_PIO, CPUFW_SPACE_MMIO };
enum { CPUFW_MAX_REGIONS = 32 };

struct cpufw_region {
    int space;
    uint64_t base, length;
    const struct cpufw_device_ops *ops;
    void *device;
};

/* The regions of one VM. They are only ever added, so readers need no lock. */
struct cpufw_bus {
    int count;
    struct cpufw_region regions[CPUFW_MAX_REGIONS];
};

/* Returns the region's number, -ENOSPC, or -EEXIST when it overlaps another. */
int cpufw_bus_add(struct cpufw_bus *bus, int space, uint64_t base, uint64_t length,
                  const struct cpufw_device_ops *ops, void *device);

/* Reasons of our own, above every KVM_EXIT_*. */
enum {
    CPUFW_EXIT_INTERRUPTED = 0x10000,
    CPUFW_EXIT_OUTPUT_READY,
};

/* The last exit, flattened. Only the fields of its reason mean anything. */
struct cpufw_exit {
    uint8_t is_write;   /* PIO, MMIO */
    uint8_t kicked;     /* interrupted: by cpufw_vcpu_kick, not another signal */
    uint16_t port;      /* PIO */
    uint32_t size;      /* PIO, MMIO: bytes an item */
    uint32_t count;     /* PIO: items */
    uint32_t code;      /* suberror; system event; CPU that failed to enter; region ready */
    uint64_t address;   /* MMIO */
    uint64_t value;     /* written by the guest; or, for a read, set before the next run */
    uint8_t *data;      /* PIO: `count` items in the run page */
    uint32_t ndata;     /* internal error, system event: words in `words` */
    uint32_t insn_size; /* internal error: bytes in `insn`, 0 when KVM gave none */
    uint64_t words[16];
    uint8_t insn[15];
};

struct cpufw_vcpu {
    int fd;
    struct kvm_run *run;
    size_t run_size;
    struct cpufw_bus *bus;
    struct cpufw_exit exit;

    uint8_t *answer;      /* where the next run puts exit.value, NULL for nowhere */
    int retry;            /* a device was full: finish this access before KVM_RUN */
    uint32_t next_item;   /* of a string access that a device interrupted */
    int announce;         /* the next access served here also returns OUTPUT_READY */

    pthread_mutex_t lock; /* guards the rest */
    int running;
    int kicked;
    int signalled;        /* `thread` was sent the kick signal in this run */
    int hold_immediate_exit;
    pthread_t thread;
};

/* Maps the run page of the vCPU behind `fd` and owns both. NULL and errno on failure. */
struct cpufw_vcpu *cpufw_vcpu_open(int fd, size_t run_size, struct cpufw_bus *bus);
/* Unmaps and closes; -EBUSY while it runs; 0 when it was closed before. */
int cpufw_vcpu_close(struct cpufw_vcpu *vcpu);
void cpufw_vcpu_free(struct cpufw_vcpu *vcpu);

/* Runs until Python is needed: an exit reason, or -errno. */
int cpufw_vcpu_run(struct cpufw_vcpu *vcpu);
/* Makes the run under way, or else the next one, return interrupted. Any thread. 0 or -errno. */
int cpufw_vcpu_kick(struct cpufw_vcpu *vcpu);
void cpufw_vcpu_hold_immediate_exit(struct cpufw_vcpu *vcpu, int on);

/* ioctl(2), tried again after EINTR; the result or -errno. */
int cpufw_ioctl(int fd, unsigned long request, void *argument);
int cpufw_ioctl_value(int fd, unsigned long request, unsigned long argument);

#endif
