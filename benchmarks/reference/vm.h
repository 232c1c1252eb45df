/* What the reference programs share: a PC-like VM made with plain ioctls, errors that end the
 * program, and one line of standard input for each sample that the benchmark asks for. */
#ifndef REFERENCE_VM_H
#define REFERENCE_VM_H

#include <linux/kvm.h>
#include <stddef.h>
#include <stdint.h>

enum { MOST_CPUID_ENTRIES = 256 };

/* struct kvm_cpuid2 with room behind it. */
struct cpuid {
    uint32_t nent;
    uint32_t padding;
    struct kvm_cpuid_entry2 entries[MOST_CPUID_ENTRIES];
};

struct vm {
    int fd;
    uint8_t *ram;
    size_t ram_size;
};

struct vcpu {
    int fd;
    struct kvm_run *run;
    struct kvm_lapic_state lapic; /* as KVM created it */
};

struct file {
    size_t size;
    uint8_t bytes[1 << 16];
};

/* Prints `what` and errno, and exits with status 1. */
void fail(const char *what);
/* ioctl(2) that must succeed; the result. */
int control(int fd, const char *name, unsigned long request, void *argument);
int64_t monotonic_ns(void);
/* The next request of the benchmark, a number; exits with status 0 when there is none. */
long next_request(void);

struct file read_file(const char *path);
/* The entries that the benchmark wrote: an array of struct kvm_cpuid_entry2. */
struct cpuid read_cpuid(const char *path);
/* `common` as the CPU with this APIC id sees it (Intel SDM vol. 2A, CPUID, leaves 1, 0xB, 0x1F). */
struct cpuid cpuid_for(const struct cpuid *common, uint32_t apic_id);

int open_kvm(void);
/* VM, TSS and identity map, interrupt controllers, PIT, and RAM from address 0. */
struct vm create_vm(int kvm, size_t ram_size);
void destroy_vm(struct vm *vm);
/* vCPU with its CPUID set and read back and its local APIC written once. */
struct vcpu create_vcpu(int kvm, const struct vm *vm, uint32_t id, struct cpuid *cpuid);
void destroy_vcpu(int kvm, struct vcpu *vcpu);

/* Flat images at their customary addresses, entered at the first byte. */
void enter_real_mode(const struct vm *vm, const struct vcpu *vcpu, const struct file *image);
void enter_protected_mode(const struct vm *vm, const struct vcpu *vcpu, const struct file *image);

#endif
