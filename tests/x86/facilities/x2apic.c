/* The x2APIC: its MSRs, and what they refuse. */
#include "guest.h"

enum { VECTOR = 0x50, ID = MSR_X2APIC + 0x02, LDR = MSR_X2APIC + 0x0d, ICR = MSR_X2APIC + 0x30 };
enum { SELF_IPI = MSR_X2APIC + 0x3f, EOI = MSR_X2APIC + 0x0b };

static volatile uint32_t count;

static void on_interrupt(struct frame *frame)
{
    (void)frame;
    __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static uint64_t rdmsr_faults(uint32_t index)
{
    return FAULTS("rdmsr", : : "c"(index) : "rax", "rdx", "memory");
}

static uint64_t wrmsr_faults(uint32_t index, uint64_t value)
{
    return FAULTS("wrmsr", : : "c"(index), "a"(value), "d"(value >> 32) : "memory");
}

CHECK(its_msrs_fault_before)
{
    EXPECT(rdmsr_faults(ID) == GP, "the id could be read");
    EXPECT(wrmsr_faults(SELF_IPI, VECTOR) == GP, "a self IPI could be sent");
}

CHECK(turned_on)
{
    uint32_t before = apic_id();
    SKIP_UNLESS(enable_x2apic(), "the CPU has no x2APIC");
    EXPECT(rdmsr(MSR_APIC_BASE) & 1 << 10, "APIC base %x", rdmsr(MSR_APIC_BASE));
    EXPECT(apic_id() == before, "id %u, was %u", (uint64_t)apic_id(), (uint64_t)before);
    EXPECT(start_cpus(10000), "%u CPUs came", (uint64_t)cpus_up);
}

CHECK(logical_id_follows_from_the_id)
{
    uint32_t id = apic_id();
    uint64_t logical = rdmsr(LDR);
    EXPECT(logical == (id >> 4 << 16 | 1u << (id & 0xf)), "LDR %x of id %u", logical, (uint64_t)id);
}

CHECK(read_only_and_reserved_registers)
{
    EXPECT(wrmsr_faults(ID, 7) == GP, "the id could be written");
    EXPECT(wrmsr_faults(LDR, 7) == GP, "the logical id could be written");
    EXPECT(rdmsr_faults(EOI) == GP, "EOI could be read");
    EXPECT(rdmsr_faults(SELF_IPI) == GP, "the self IPI could be read");
    EXPECT(rdmsr_faults(MSR_X2APIC + 0x0e) == GP, "DFR is there");
}

CHECK(self_ipi_register)
{
    count = 0;
    handle(VECTOR, on_interrupt);
    wrmsr(SELF_IPI, VECTOR);
    EXPECT(wait_for(&count, 1, 1000), "none came");
}

CHECK(command_register_is_64_bits)
{
    count = 0;
    wrmsr(ICR, (uint64_t)apic_id_of[1] << 32 | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, 1, 1000), "none came");
    EXPECT(rdmsr(ICR) >> 32 == apic_id_of[1], "ICR %x", rdmsr(ICR));
}

CHECK(logical_ipi)
{
    uint32_t id = apic_id_of[1];
    count = 0;
    apic_icr(id >> 4 << 16 | 1u << (id & 0xf), ICR_LOGICAL | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, 1, 1000), "none came");
}

CHECK(broadcast_ipi)
{
    count = 0;
    apic_icr(0xffffffff, ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, cpus_up, 1000), "%u came", (uint64_t)count);
}

CHECK(back_to_xapic_is_refused)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);
    EXPECT(wrmsr_faults(MSR_APIC_BASE, base & ~(1ull << 10)) == GP, "it was taken");
    EXPECT(rdmsr(MSR_APIC_BASE) == base, "APIC base %x, was %x", rdmsr(MSR_APIC_BASE), base);
}
