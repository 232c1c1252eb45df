/* Model-specific registers: what they keep, and what they refuse. */
#include "guest.h"

static uint64_t rdmsr_faults(uint32_t index)
{
    return FAULTS("rdmsr", : : "c"(index) : "rax", "rdx", "memory");
}

static uint64_t wrmsr_faults(uint32_t index, uint64_t value)
{
    return FAULTS("wrmsr", : : "c"(index), "a"(value), "d"(value >> 32) : "memory");
}

CHECK(efer)
{
    uint64_t before = rdmsr(MSR_EFER);
    EXPECT(before & 1 << 10, "long mode is not active: %x", before);
    wrmsr(MSR_EFER, before | EFER_SCE | EFER_NXE);
    EXPECT(rdmsr(MSR_EFER) == (before | EFER_SCE | EFER_NXE), "it reads as %x", rdmsr(MSR_EFER));
    EXPECT(wrmsr_faults(MSR_EFER, before | 1 << 9) == GP, "a reserved bit was taken");
    EXPECT(wrmsr_faults(MSR_EFER, before & ~(1ull << 8)) == GP, "LME went with paging on");
    wrmsr(MSR_EFER, before);
}

CHECK(page_attributes)
{
    uint64_t before = rdmsr(MSR_PAT);
    EXPECT(before == 0x0007040600070406, "it begins as %x", before);
    wrmsr(MSR_PAT, 0x0001040600070406);
    EXPECT(rdmsr(MSR_PAT) == 0x0001040600070406, "it reads as %x", rdmsr(MSR_PAT));
    wrmsr(MSR_PAT, before);
}

CHECK(page_attributes_have_reserved_types)
{
    uint64_t before = rdmsr(MSR_PAT), vector = wrmsr_faults(MSR_PAT, 0x0002040600070406);
    wrmsr(MSR_PAT, before);
    EXPECT(vector == GP, "type 2 was taken");
}

CHECK(segment_bases)
{
    static uint64_t here = 0x1122334455667788, there = 0x99aabbccddeeff00;
    uint64_t value;
    wrmsr(MSR_FS_BASE, (uint64_t)&here);
    asm volatile("mov %%fs:0, %0" : "=r"(value));
    EXPECT(value == here, "through fs: %x", value);
    wrmsr(MSR_GS_BASE, (uint64_t)&here);
    wrmsr(MSR_KERNEL_GS_BASE, (uint64_t)&there);
    asm volatile("mov %%gs:0, %0" : "=r"(value));
    EXPECT(value == here, "through gs: %x", value);
    asm volatile("swapgs; mov %%gs:0, %0; swapgs" : "=r"(value));
    EXPECT(value == there, "after swapgs: %x", value);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

CHECK(fsgsbase)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1, "the CPU has no fsgsbase");
    uint64_t value;
    WRITE_CR(4, READ_CR(4) | CR4_FSGSBASE);
    asm volatile("wrfsbase %0" : : "r"(0x123456789abcul));
    EXPECT(rdmsr(MSR_FS_BASE) == 0x123456789abc, "FS base %x", rdmsr(MSR_FS_BASE));
    wrmsr(MSR_GS_BASE, 0x7654321000);
    asm volatile("rdgsbase %0" : "=r"(value));
    EXPECT(value == 0x7654321000, "GS base %x", value);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_FSGSBASE);
}

CHECK(fsgsbase_is_off_at_first)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1, "the CPU has no fsgsbase");
    uint64_t value, faulted = FAULTS("rdfsbase %0", : "=r"(value) : : "memory");
    EXPECT(faulted == UD, "vector %u", faulted);
}

CHECK(system_call_targets)
{
    wrmsr(MSR_STAR, 0x0013000800000000);
    EXPECT(rdmsr(MSR_STAR) == 0x0013000800000000, "STAR %x", rdmsr(MSR_STAR));
    wrmsr(MSR_LSTAR, 0xffffffff81000000);
    EXPECT(rdmsr(MSR_LSTAR) == 0xffffffff81000000, "LSTAR %x", rdmsr(MSR_LSTAR));
    for (uint32_t index = 0x174; index <= 0x176; index++) {
        wrmsr(index, 0x1000 + index);
        EXPECT(rdmsr(index) == 0x1000 + index, "SYSENTER's %x reads as %x", (uint64_t)index,
               rdmsr(index));
    }
}

CHECK(addresses_are_canonical)
{
    EXPECT(wrmsr_faults(MSR_FS_BASE, 1ull << 63) == GP, "FS base took another");
    EXPECT(wrmsr_faults(MSR_LSTAR, 1ull << 62) == GP, "LSTAR took another");
}

CHECK(mtrrs)
{
    SKIP_UNLESS(cpuid(1, 0).edx & 1 << 12, "the CPU has no MTRRs");
    uint64_t capabilities = rdmsr(0xfe);
    EXPECT((capabilities & 0xff) >= 8, "%u variable ranges", capabilities & 0xff);
    wrmsr(0x200, 0x80000006);
    EXPECT(rdmsr(0x200) == 0x80000006, "it reads as %x", rdmsr(0x200));
    wrmsr(0x200, 0);
}

CHECK(unknown_ones_fault)
{
    EXPECT(rdmsr_faults(0x12345678) == GP, "reading did not");
    EXPECT(wrmsr_faults(0x12345678, 1) == GP, "writing did not");
    EXPECT(fault.error == 0, "error code %x", fault.error);
}

CHECK(apic_base)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    EXPECT((base & ~0xfffull) == 0xfee00000, "%x", base);
    EXPECT(base & 1 << 8, "this is not the boot CPU: %x", base);
    EXPECT(base & 1 << 11, "the APIC is off: %x", base);
}
