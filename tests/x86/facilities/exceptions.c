/* Faults and traps arrive with their vector, error code and address. */
#include "guest.h"

CHECK(divide_error)
{
    uint64_t vector = FAULTS("div %%ecx", : : "a"(1), "d"(0), "c"(0) : "memory", "cc");
    EXPECT(vector == DE, "vector %u", vector);
}

CHECK(undefined_opcode)
{
    uint64_t vector = FAULTS("ud2", : : : "memory");
    EXPECT(vector == UD, "vector %u", vector);
}

CHECK(general_protection_of_a_bad_selector)
{
    uint64_t vector = FAULTS("mov %w0, %%ds", : : "r"(0x1f8) : "memory");
    EXPECT(vector == GP && fault.error == 0x1f8, "vector %u error %x", vector, fault.error);
}

CHECK(general_protection_of_an_address_not_canonical)
{
    uint64_t address = 0x8000000000000000, value;
    uint64_t vector = FAULTS("mov (%1), %0", : "=r"(value) : "r"(address) : "memory");
    EXPECT(vector == GP && !fault.error, "vector %u error %x", vector, fault.error);
}

CHECK(page_fault_with_address_and_error_code)
{
    uint64_t address = 0x123456789000, value;
    uint64_t vector = FAULTS("mov (%1), %0", : "=r"(value) : "r"(address) : "memory");
    EXPECT(vector == PF, "vector %u", vector);
    EXPECT(fault.cr2 == address && fault.error == 0, "read: cr2 %x error %x", fault.cr2,
           fault.error);
    vector = FAULTS("mov %0, 5(%0)", : : "r"(address) : "memory");
    EXPECT(vector == PF && fault.cr2 == address + 5 && fault.error == 2,
           "write: vector %u cr2 %x error %x", vector, fault.cr2, fault.error);
}

static volatile uint32_t traps;
static volatile uint64_t trap_rip, trap_dr6;

static void on_trap(struct frame *frame)
{
    traps++;
    trap_rip = frame->rip;
}

CHECK(breakpoint)
{
    extern char after_int3[];
    traps = 0;
    handle(BP, on_trap);
    asm volatile("int3; .globl after_int3; after_int3:" : : : "memory");
    handle(BP, NULL);
    EXPECT(traps == 1 && trap_rip == (uint64_t)after_int3, "%u traps, rip %x", (uint64_t)traps,
           trap_rip);
}

CHECK(software_interrupt)
{
    traps = 0;
    handle(0x80, on_trap);
    asm volatile("int $0x80" : : : "memory");
    EXPECT(traps == 1, "%u traps", (uint64_t)traps);
}

static void on_step(struct frame *frame)
{
    uint64_t dr6;
    asm volatile("mov %%dr6, %0" : "=r"(dr6));
    trap_dr6 = dr6;
    traps++;
    if (traps == 3)
        frame->rflags &= ~RFLAGS_TF;
    frame->rflags |= RFLAGS_RF; /* else an execution breakpoint comes again, for ever */
    asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ul));
}

CHECK(single_step)
{
    traps = 0;
    handle(DB, on_step);
    asm volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop; nop; nop; nop" : : : "memory", "cc");
    handle(DB, NULL);
    EXPECT(traps == 3, "%u traps", (uint64_t)traps);
    EXPECT(trap_dr6 & 1 << 14, "dr6 %x", trap_dr6);
}

CHECK(execution_breakpoint_of_a_debug_register)
{
    extern char watched[];
    traps = 0;
    handle(DB, on_step);
    asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"((uint64_t)watched), "r"(0x402ul));
    asm volatile("pushfq; nop; .globl watched; watched: nop; popfq" : : : "memory", "cc");
    asm volatile("mov %0, %%dr7" : : "r"(0x400ul));
    handle(DB, NULL);
    EXPECT(traps == 1 && trap_dr6 & 1, "%u traps, dr6 %x", (uint64_t)traps, trap_dr6);
}

static volatile uint32_t watched_data;

CHECK(data_breakpoint_of_a_debug_register)
{
    traps = 0;
    handle(DB, on_step);
    asm volatile("mov %0, %%dr1; mov %1, %%dr7" : : "r"((uint64_t)&watched_data), "r"(0xd00408ul));
    watched_data = 7;
    asm volatile("mov %0, %%dr7" : : "r"(0x400ul));
    handle(DB, NULL);
    EXPECT(traps == 1 && trap_dr6 & 2, "%u traps, dr6 %x", (uint64_t)traps, trap_dr6);
}

CHECK(registers_survive_an_interrupt)
{
    uint64_t a = 0x1111111111111111, b = 0x2222222222222222, c = 0x3333333333333333;
    register uint64_t r15 asm("r15") = 0xf0f0f0f0f0f0f0f0;
    uint64_t vector = FAULTS("ud2", : "+a"(a), "+b"(b), "+c"(c), "+r"(r15) : : "memory");
    EXPECT(vector == UD, "vector %u", vector);
    EXPECT(a == 0x1111111111111111 && b == 0x2222222222222222 && c == 0x3333333333333333 &&
               r15 == 0xf0f0f0f0f0f0f0f0,
           "%x %x %x %x", a, b, c, r15);
}
