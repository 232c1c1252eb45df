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

static inline __u8 cpufw_eoi_vector(const void *page)
{
    return ((const struct kvm_run *)page)->eoi.vector;
}

#endif
