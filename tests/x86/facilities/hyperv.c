/* Hyper-V's interface: what CPUID says (printed for the test to compare), and that it works.
 *
 * Numbers: Hypervisor Top Level Functional Specification, 2.4 and its lists of MSRs.
 */
#include "guest.h"

enum {
    GUEST_OS_ID = 0x40000000,
    HYPERCALL,
    VP_INDEX,
    RESET,
    TIME_REF_COUNT = 0x40000020,
    TSC_FREQUENCY = 0x40000022,
    SCONTROL = 0x40000080,
    SINT0 = 0x40000090,
    STIMER0_CONFIG = 0x400000b0,
    STIMER0_COUNT,
    CRASH_P0 = 0x40000100,
    CRASH_CTL = 0x40000105,

    ENABLED = 1,
    AUTO_ENABLE = 1 << 3,
    DIRECT = 1 << 12,
    MASKED = 1 << 16,
    VECTOR = 0x61,
    POST_MESSAGE = 0x5c,
    NO_SUCH_CALL = 0xfff,
    INVALID_HYPERCALL_CODE = 2,
};

static uint8_t call_page[4096] __attribute__((aligned(4096)));
static volatile uint32_t count;

static void on_timer(struct frame *frame)
{
    (void)frame;
    count++;
    apic_eoi();
}

static uint64_t hypercall(uint64_t control)
{
    register uint64_t output asm("r8") = 0;
    uint64_t result;
    asm volatile("call *%2"
                 : "=a"(result), "+r"(output)
                 : "r"((uint64_t)call_page), "c"(control), "d"(0UL)
                 : "memory", "r9", "r10", "r11");
    return result & 0xffff;
}

static uint32_t privileges(void) { return cpuid(0x40000003, 0).eax; }

CHECK(leaves)
{
    static const uint32_t bases[] = {0x40000000, 0x40000100};
    for (int base = 0; base < 2; base++)
        for (uint32_t leaf = bases[base]; leaf <= cpuid(bases[base], 0).eax; leaf++) {
            struct registers r = cpuid(leaf, 0);
            print("leaf %x %x %x %x %x\n", (uint64_t)leaf, (uint64_t)r.eax, (uint64_t)r.ebx,
                  (uint64_t)r.ecx, (uint64_t)r.edx);
        }
}

CHECK(processor_index)
{
    EXPECT(privileges() & 1 << 6, "no such MSR");
    EXPECT(rdmsr(VP_INDEX) == 0, "it is %u", rdmsr(VP_INDEX));
}

CHECK(reference_counter_runs_at_10_mhz)
{
    uint64_t from = rdmsr(TIME_REF_COUNT), end = rdtsc() + 20 * tsc_per_ms();
    while (rdtsc() < end)
        pause();
    uint64_t ticks = rdmsr(TIME_REF_COUNT) - from;
    EXPECT(ticks > 19 * 10000, "%u ticks in 20 ms", ticks);
}

CHECK(tsc_frequency)
{
    uint64_t told = rdmsr(TSC_FREQUENCY) / 1000, measured = tsc_per_ms();
    EXPECT(told > measured / 2 && told < 2 * measured, "%u kHz, and %u", told, measured);
}

CHECK(synthetic_interrupts_are_masked_at_first)
{
    for (int i = 0; i < 16; i++)
        EXPECT(rdmsr(SINT0 + i) == MASKED, "SINT%u is %x", (uint64_t)i, rdmsr(SINT0 + i));
    EXPECT(rdmsr(SCONTROL) == 0, "SCONTROL is %x", rdmsr(SCONTROL));
    wrmsr(SCONTROL, ENABLED);
    EXPECT(rdmsr(SCONTROL) == ENABLED, "SCONTROL stays %x", rdmsr(SCONTROL));
}

CHECK(synthetic_timer_interrupts)
{
    handle(VECTOR, on_timer);
    apic_write(APIC_SPIV, 0x1ff);
    sti();
    wrmsr(STIMER0_CONFIG, AUTO_ENABLE | DIRECT | VECTOR << 4);
    wrmsr(STIMER0_COUNT, rdmsr(TIME_REF_COUNT) + 10000);
    uint64_t end = rdtsc() + 500 * tsc_per_ms();
    while (!count && rdtsc() < end)
        pause();
    cli();
    EXPECT(count == 1, "%u interrupts", (uint64_t)count);
}

CHECK(hypercalls)
{
    wrmsr(GUEST_OS_ID, 1UL << 63 | 1);
    wrmsr(HYPERCALL, (uint64_t)call_page | ENABLED);
    EXPECT(rdmsr(HYPERCALL) == ((uint64_t)call_page | ENABLED), "it is %x", rdmsr(HYPERCALL));
    uint64_t status = hypercall(NO_SUCH_CALL);
    EXPECT(status == INVALID_HYPERCALL_CODE, "one that is none gives %u", status);
    status = hypercall(POST_MESSAGE); /* there is nobody to take it */
    EXPECT(status == INVALID_HYPERCALL_CODE, "a message gives %u", status);
}

CHECK(end)
{
    if (argument("to-crash")) {
        wrmsr(CRASH_P0, 0xdead);
        wrmsr(CRASH_CTL, 1UL << 63);
        fail("it goes on after its crash");
    }
    if (argument("to-reset")) {
        wrmsr(RESET, 1);
        fail("it goes on after its reset");
    }
}
