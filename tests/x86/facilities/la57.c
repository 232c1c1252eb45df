/* Paging with five levels: linear addresses of 57 bits. */
#include "guest.h"

enum { AT_LEVEL_5 = 1 };

/* CR4.LA57 changes only with paging off, so through 32-bit code below 4 GiB. */
void change_levels(uint64_t cr3, uint64_t cr4);
asm(".text\n"
    "change_levels:\n"
    "    push %rbx\n"
    "    lea compatibility_target(%rip), %rax\n"
    "    pushq $0x28\n"
    "    push %rax\n"
    "    lretq\n"
    "    .code32\n"
    "compatibility_target:\n"
    "    mov %cr0, %eax\n"
    "    and $0x7fffffff, %eax\n"
    "    mov %eax, %cr0\n"
    "    mov %esi, %cr4\n"
    "    mov %edi, %cr3\n"
    "    or $0x80000000, %eax\n"
    "    mov %eax, %cr0\n"
    "    ljmp $0x08, $long_target\n"
    "    .code64\n"
    "long_target:\n"
    "    pop %rbx\n"
    "    ret\n");

static bool has_la57(void) { return cpuid(7, 0).ecx & 1 << 16; }

CHECK(turned_on)
{
    SKIP_UNLESS(has_la57(), "the CPU has no la57");
    uint64_t *top = page();
    top[0] = READ_CR(3) | PRESENT | WRITABLE | USER;
    change_levels((uint64_t)top, READ_CR(4) | CR4_LA57);
    EXPECT(READ_CR(4) & CR4_LA57, "CR4 %x", READ_CR(4));
}

CHECK(address_of_57_bits)
{
    SKIP_UNLESS(has_la57(), "the CPU has no la57");
    uint64_t address = 3ull << 48 | 0x123456789000, *there = page();
    there[1] = 0x5757;
    map(address, (uint64_t)there | PRESENT | WRITABLE);
    EXPECT(((volatile uint64_t *)address)[1] == 0x5757, "%x", ((volatile uint64_t *)address)[1]);
}

CHECK(address_beyond_57_bits)
{
    SKIP_UNLESS(has_la57(), "the CPU has no la57");
    uint64_t address = 1ull << 57, value;
    uint64_t vector = FAULTS("mov (%1), %0", : "=r"(value) : "r"(address) : "memory");
    EXPECT(vector == GP, "vector %u", vector);
}

CHECK(changed_with_paging_on_faults)
{
    SKIP_UNLESS(has_la57(), "the CPU has no la57");
    uint64_t value = READ_CR(4) & ~(uint64_t)CR4_LA57;
    uint64_t vector = FAULTS("mov %0, %%cr4", : : "r"(value) : "memory");
    EXPECT(vector == GP, "vector %u", vector);
}

CHECK(turned_off)
{
    SKIP_UNLESS(has_la57(), "the CPU has no la57");
    uint64_t *top = (uint64_t *)READ_CR(3);
    change_levels(top[0] & ~0xfffull, READ_CR(4) & ~(uint64_t)CR4_LA57);
    EXPECT(!(READ_CR(4) & CR4_LA57), "CR4 %x", READ_CR(4));
}
