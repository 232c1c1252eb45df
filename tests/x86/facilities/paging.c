/* Paging: permissions, page sizes, accessed and dirty bits, and the faults of each. */
#include "guest.h"

enum { AT = 0x4000000000, READ = 0, FETCH = 0x10, WRITE = 2, PROTECTION = 1, RESERVED = 8 };

static uint64_t read_faults(uint64_t address)
{
    uint64_t value;
    return FAULTS("mov (%1), %0", : "=r"(value) : "r"(address) : "memory");
}

static uint64_t write_faults(uint64_t address)
{
    return FAULTS("movq %0, (%0)", : : "r"(address) : "memory");
}

static uint64_t call_faults(uint64_t address)
{
    /* The fault leaves the return address behind, on a stack of its own. */
    static uint64_t stack[64];
    return FAULTS("mov %%rsp, %%rbx; mov %1, %%rsp; call *%0; 1: mov %%rbx, %%rsp",
                  : : "r"(address), "r"(stack + 60) : "rbx", "memory");
}

CHECK(page_of_4_kib)
{
    uint64_t *there = page();
    there[7] = 0x77;
    map(AT, (uint64_t)there | PRESENT | WRITABLE);
    EXPECT(((volatile uint64_t *)AT)[7] == 0x77, "read %x", ((volatile uint64_t *)AT)[7]);
    ((volatile uint64_t *)AT)[8] = 0x88;
    EXPECT(there[8] == 0x88, "written %x", there[8]);
}

CHECK(accessed_and_dirty)
{
    map(AT, (uint64_t)page() | PRESENT | WRITABLE);
    volatile uint64_t *entry = entry_of(AT, 1);
    EXPECT(!(*entry & (ACCESSED | DIRTY)), "before: %x", *entry);
    EXPECT(read_faults(AT) == NOTHING && (*entry & (ACCESSED | DIRTY)) == ACCESSED, "read: %x",
           *entry);
    EXPECT(write_faults(AT) == NOTHING && *entry & DIRTY, "written: %x", *entry);
}

CHECK(not_present)
{
    map(AT, 0);
    EXPECT(read_faults(AT) == PF && fault.error == READ && fault.cr2 == AT, "read: %u %x %x",
           fault.vector, fault.error, fault.cr2);
    EXPECT(write_faults(AT) == PF && fault.error == WRITE, "write: %u %x", fault.vector,
           fault.error);
}

CHECK(write_protection)
{
    map(AT, (uint64_t)page() | PRESENT);
    WRITE_CR(0, READ_CR(0) & ~(uint64_t)CR0_WP);
    uint64_t without = write_faults(AT);
    WRITE_CR(0, READ_CR(0) | CR0_WP);
    EXPECT(without == NOTHING, "without CR0.WP: vector %u", without);
    EXPECT(write_faults(AT) == PF && fault.error == (WRITE | PROTECTION), "with it: %u %x",
           fault.vector, fault.error);
}

CHECK(no_execution)
{
    uint8_t *code = page();
    code[0] = 0xc3; /* ret */
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    map(AT, (uint64_t)code | PRESENT);
    asm volatile("call *%0" : : "r"((uint64_t)AT) : "memory");
    map(AT, (uint64_t)code | PRESENT | NX);
    EXPECT(call_faults(AT) == PF && fault.error == (FETCH | PROTECTION), "%u %x", fault.vector,
           fault.error);
    EXPECT(read_faults(AT) == NOTHING, "reading: vector %u", fault.vector);
}

CHECK(reserved_bit)
{
    uint32_t bits = cpuid(0x80000008, 0).eax & 0xff;
    SKIP_UNLESS(bits < 51, "the CPU has %u address bits", (uint64_t)bits);
    map(AT, (uint64_t)page() | PRESENT | 1ull << 51);
    uint64_t vector = read_faults(AT);
    map(AT, 0);
    EXPECT(vector == PF && fault.error & RESERVED, "%u %x", vector, fault.error);
}

CHECK(page_of_2_mib)
{
    uint64_t *there = page();
    there[3] = 0x33;
    map(AT, 0); /* makes the tables above */
    uint64_t *entry = entry_of(AT, 2), before = *entry;
    *entry = ((uint64_t)there & ~0x1fffffull) | PRESENT | WRITABLE | LARGE;
    WRITE_CR(3, READ_CR(3));
    volatile uint64_t *mapped = (volatile uint64_t *)(AT | ((uint64_t)there & 0x1fffff));
    uint64_t value = mapped[3];
    *entry = before;
    WRITE_CR(3, READ_CR(3));
    EXPECT(value == 0x33, "read %x", value);
}

CHECK(page_of_1_gib)
{
    SKIP_UNLESS(cpuid(0x80000001, 0).edx & 1 << 26, "the CPU has no pages of 1 GiB");
    uint64_t *there = page();
    there[3] = 0x44;
    map(AT, 0);
    uint64_t *entry = entry_of(AT, 3), before = *entry;
    *entry = PRESENT | WRITABLE | LARGE;
    WRITE_CR(3, READ_CR(3));
    uint64_t value = ((volatile uint64_t *)(AT | (uint64_t)there))[3];
    *entry = before;
    WRITE_CR(3, READ_CR(3));
    EXPECT(value == 0x44, "read %x", value);
}

CHECK(old_translation_goes_with_invlpg)
{
    uint64_t *one = page(), *two = page();
    one[0] = 1, two[0] = 2;
    map(AT, (uint64_t)one | PRESENT);
    EXPECT(*(volatile uint64_t *)AT == 1, "first %x", *(volatile uint64_t *)AT);
    *entry_of(AT, 1) = (uint64_t)two | PRESENT;
    invlpg((void *)AT);
    EXPECT(*(volatile uint64_t *)AT == 2, "then %x", *(volatile uint64_t *)AT);
}

CHECK(supervisor_does_not_execute_user_pages)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1 << 7, "the CPU has no smep");
    uint8_t *code = page();
    code[0] = 0xc3;
    map(AT, (uint64_t)code | PRESENT | USER);
    WRITE_CR(4, READ_CR(4) | CR4_SMEP);
    uint64_t vector = call_faults(AT);
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_SMEP);
    EXPECT(vector == PF && fault.error == (FETCH | PROTECTION), "%u %x", vector, fault.error);
}

CHECK(supervisor_does_not_touch_user_pages)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1 << 20, "the CPU has no smap");
    map(AT, (uint64_t)page() | PRESENT | WRITABLE | USER);
    WRITE_CR(4, READ_CR(4) | CR4_SMAP);
    uint64_t vector = read_faults(AT), error = fault.error;
    asm volatile("stac" : : : "memory");
    uint64_t allowed = read_faults(AT);
    asm volatile("clac" : : : "memory");
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_SMAP);
    EXPECT(vector == PF && error == PROTECTION, "%u %x", vector, error);
    EXPECT(allowed == NOTHING, "with AC set: vector %u", allowed);
}

CHECK(process_context_identifiers)
{
    SKIP_UNLESS(cpuid(1, 0).ecx & 1 << 17, "the CPU has no pcid");
    uint64_t *one = page(), *two = page(), cr3 = READ_CR(3);
    one[0] = 1, two[0] = 2;
    map(AT, (uint64_t)one | PRESENT);
    WRITE_CR(4, READ_CR(4) | CR4_PCIDE);
    WRITE_CR(3, cr3 | 5);
    EXPECT(*(volatile uint64_t *)AT == 1, "first %x", *(volatile uint64_t *)AT);
    *entry_of(AT, 1) = (uint64_t)two | PRESENT;
    WRITE_CR(3, cr3 | 6);
    uint64_t fresh = *(volatile uint64_t *)AT;
    WRITE_CR(3, cr3 | 5); /* without bit 63: what was kept under 5 goes */
    uint64_t flushed = *(volatile uint64_t *)AT;
    WRITE_CR(3, cr3);
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_PCIDE);
    EXPECT(fresh == 2, "under a new identifier: %x", fresh);
    EXPECT(flushed == 2, "after loading CR3: %x", flushed);
}

CHECK(invpcid)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1 << 10, "the CPU has no invpcid");
    uint64_t *one = page(), *two = page(), descriptor[2] = {0, AT};
    one[0] = 1, two[0] = 2;
    for (uint64_t type = 0; type < 4; type++) {
        map(AT, (uint64_t)one | PRESENT);
        EXPECT(*(volatile uint64_t *)AT == 1, "first %x", *(volatile uint64_t *)AT);
        *entry_of(AT, 1) = (uint64_t)two | PRESENT;
        asm volatile("invpcid %0, %1" : : "m"(descriptor), "r"(type) : "memory");
        EXPECT(*(volatile uint64_t *)AT == 2, "type %u: %x", type, *(volatile uint64_t *)AT);
    }
    uint64_t vector = FAULTS("invpcid %0, %1", : : "m"(descriptor), "r"(4ul) : "memory");
    EXPECT(vector == GP, "type 4: vector %u", vector);
}
