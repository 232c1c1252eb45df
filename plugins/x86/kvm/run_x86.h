/* x86's own exits, taken out of and answered in the run page. */
#ifndef CPUFW_RUN_X86_H
#define CPUFW_RUN_X86_H

#include <linux/kvm.h>

struct cpufw_msr_exit {
    __u32 index, reason;
    __u64 value; /* WRMSR: what the guest writes */
};

static inline struct cpufw_msr_exit cpufw_msr_exit(const void *page)
{
    const struct kvm_run *run = page;
    return (struct cpufw_msr_exit){run->msr.index, run->msr.reason, run->msr.data};
}

/* `refuse` makes the access raise #GP in the guest. */
static inline void cpufw_answer_msr(void *page, __u64 value, int refuse)
{
    struct kvm_run *run = page;
    run->msr.data = value;
    run->msr.error = refuse;
}

static inline struct kvm_debug_exit_arch cpufw_debug_exit(const void *page)
{
    return ((const struct kvm_run *)page)->debug.arch;
}

#define CPUFW_HV_INVALID_HYPERCALL_CODE 2 /* TLFS, Hypercall Status Codes */

static inline void cpufw_refuse_hypercall(void *page)
{
    struct kvm_run *run = page;
    if (run->hyperv.type == KVM_EXIT_HYPERV_HCALL)
        run->hyperv.u.hcall.result = CPUFW_HV_INVALID_HYPERCALL_CODE;
}

static inline __u8 cpufw_eoi_vector(const void *page)
{
    return ((const struct kvm_run *)page)->eoi.vector;
}

/* The routing entry's parts are a union without a name, which cffi cannot describe in part. */
static inline void cpufw_route_msi(struct kvm_irq_routing_entry *entry, __u32 gsi, __u64 address,
                                   __u32 data)
{
    entry->gsi = gsi;
    entry->type = KVM_IRQ_ROUTING_MSI;
    entry->u.msi.address_lo = address;
    entry->u.msi.address_hi = address >> 32;
    entry->u.msi.data = data;
}

static inline void cpufw_route_pin(struct kvm_irq_routing_entry *entry, __u32 gsi, __u32 chip,
                                   __u32 pin)
{
    entry->gsi = gsi;
    entry->type = KVM_IRQ_ROUTING_IRQCHIP;
    entry->u.irqchip.irqchip = chip;
    entry->u.irqchip.pin = pin;
}

/* Registers that KVM_RUN leaves in the run page (valid) and takes from it (dirty). */
static inline struct kvm_sync_regs *cpufw_sync_regs(void *page)
{
    return &((struct kvm_run *)page)->s.regs;
}

static inline __u64 *cpufw_sync_valid(void *page)
{
    return &((struct kvm_run *)page)->kvm_valid_regs;
}

static inline __u64 *cpufw_sync_dirty(void *page)
{
    return &((struct kvm_run *)page)->kvm_dirty_regs;
}

#endif
