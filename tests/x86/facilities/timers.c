/* The local APIC's timer in its three modes, the PIT's counters and the ACPI timer. */
#include "guest.h"

enum { VECTOR = 0x60, DIVIDE_BY_1 = 0xb, PM_TIMER = 0x608 };

static volatile uint32_t count;
static volatile uint64_t when;

static void on_timer(struct frame *frame)
{
    (void)frame;
    when = rdtsc();
    count++;
    apic_eoi();
}

static void arm(uint32_t mode, uint32_t initial)
{
    count = 0;
    handle(VECTOR, on_timer);
    apic_write(APIC_SPIV, 0x1ff);
    apic_write(APIC_TIMER_DIVIDE, DIVIDE_BY_1);
    apic_write(APIC_LVT_TIMER, mode | VECTOR);
    apic_write(APIC_TIMER_INITIAL, initial);
}

enum { DIVIDE_BY_128 = 0xa };

/* A million times the timer's ticks by those of the TSC. A host that takes its time between two
 * reads makes it too little, never too much.
 */
static uint64_t timer_rate(uint32_t divisor)
{
    uint64_t best = 0;
    for (int i = 0; i < 3; i++) {
        arm(TIMER_ONE_SHOT | LVT_MASKED, 0);
        apic_write(APIC_TIMER_DIVIDE, divisor);
        uint64_t begin = rdtsc(), end = begin + 5 * tsc_per_ms();
        apic_write(APIC_TIMER_INITIAL, 0xffffffff);
        while (rdtsc() < end)
            pause();
        uint64_t ticks = 0xffffffff - apic_read(APIC_TIMER_CURRENT);
        uint64_t rate = ticks * 1000000 / (rdtsc() - begin);
        best = rate > best ? rate : best;
    }
    apic_write(APIC_TIMER_INITIAL, 0);
    return best;
}

static uint32_t apic_ticks_per_ms(void)
{
    static uint32_t measured;
    if (!measured)
        measured = timer_rate(DIVIDE_BY_1) * tsc_per_ms() / 1000000;
    return measured;
}

CHECK(one_shot_comes_once)
{
    uint64_t begin = rdtsc();
    arm(TIMER_ONE_SHOT, 5 * apic_ticks_per_ms());
    EXPECT(wait_for(&count, 1, 1000), "it did not come");
    EXPECT(when - begin >= 4 * tsc_per_ms(), "it came after %u us",
           (when - begin) * 1000 / tsc_per_ms());
    EXPECT(!wait_for(&count, 2, 30), "it came twice");
    EXPECT(apic_read(APIC_TIMER_CURRENT) == 0, "it still counts");
}

CHECK(periodic_comes_again)
{
    arm(TIMER_PERIODIC, 2 * apic_ticks_per_ms());
    EXPECT(wait_for(&count, 5, 2000), "%u came", (uint64_t)count);
    apic_write(APIC_TIMER_INITIAL, 0);
    uint32_t so_far = count;
    EXPECT(!wait_for(&count, so_far + 2, 30), "it goes on");
}

CHECK(masked_does_not_come)
{
    arm(TIMER_ONE_SHOT | LVT_MASKED, apic_ticks_per_ms());
    EXPECT(!wait_for(&count, 1, 20), "it came");
}

CHECK(divisor_slows_it_down)
{
    uint64_t fast = timer_rate(DIVIDE_BY_1), slow = timer_rate(DIVIDE_BY_128);
    EXPECT(slow && slow * 128 > fast / 2 && slow * 128 < 2 * fast, "rates %u and %u", fast, slow);
}

static bool has_deadline(void) { return cpuid(1, 0).ecx & 1 << 24; }

CHECK(deadline_comes_at_its_time)
{
    SKIP_UNLESS(has_deadline(), "the CPU has no TSC deadline");
    arm(TIMER_DEADLINE, 0);
    uint64_t deadline = rdtsc() + 5 * tsc_per_ms();
    wrmsr(MSR_TSC_DEADLINE, deadline);
    EXPECT(wait_for(&count, 1, 1000), "it did not come");
    EXPECT(when >= deadline, "it came %u ticks early", deadline - when);
    EXPECT(rdmsr(MSR_TSC_DEADLINE) == 0, "the deadline still stands");
    EXPECT(!wait_for(&count, 2, 20), "it came twice");
}

CHECK(deadline_in_the_past_comes_at_once)
{
    SKIP_UNLESS(has_deadline(), "the CPU has no TSC deadline");
    arm(TIMER_DEADLINE, 0);
    wrmsr(MSR_TSC_DEADLINE, 1);
    EXPECT(wait_for(&count, 1, 1000), "it did not come");
}

CHECK(deadline_taken_back)
{
    SKIP_UNLESS(has_deadline(), "the CPU has no TSC deadline");
    arm(TIMER_DEADLINE, 0);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 50 * tsc_per_ms());
    wrmsr(MSR_TSC_DEADLINE, 0);
    EXPECT(!wait_for(&count, 1, 80), "it came");
}

CHECK(halted_cpu_wakes_at_its_timer)
{
    arm(TIMER_ONE_SHOT, 2 * apic_ticks_per_ms());
    sti_hlt();
    EXPECT(count == 1, "%u interrupts", (uint64_t)count);
}

CHECK(acpi_timer_runs_at_its_frequency)
{
    uint32_t from = inl(PM_TIMER), last = from, ticks = 0;
    while (ticks < 3579545 / 100) {
        uint32_t now = inl(PM_TIMER);
        EXPECT(((now - last) & 0xffffff) < 0x800000, "it went back from %x to %x", (uint64_t)last,
               (uint64_t)now);
        last = now;
        ticks = (now - from) & 0xffffff;
    }
}

CHECK(pit_counter_2_counts_down)
{
    outb(0x61, (inb(0x61) & ~2) | 1); /* gate on, speaker off */
    outb(0x43, 0xb0);                 /* counter 2, both bytes, mode 0 */
    outb(0x42, 0xff);
    outb(0x42, 0xff);
    SKIP_UNLESS(inb(0x61) != 0xff, "there is no PIT");
    EXPECT(!(inb(0x61) & 1 << 5), "the output is up at once");
    uint64_t end = rdtsc() + 80 * tsc_per_ms(); /* it takes 55 ms */
    while (!(inb(0x61) & 1 << 5) && rdtsc() < end)
        pause();
    EXPECT(inb(0x61) & 1 << 5, "the output does not rise");
}
