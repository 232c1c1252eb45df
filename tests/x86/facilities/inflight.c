/* A guest that is saved with interrupts on their way: none of them may be lost, of any kind.
 *
 * Each round it says "held" with interrupts off and waits for a byte on COM1; then it lets the
 * interrupts in and says "came", or what is missing. The power button is the host's to press:
 * before the byte, or without one at any time, which it answers with "button".
 */
#include "guest.h"

/* ACPI 6.5, 4.8.3.1: status and enable in one; bit 8 is the power button. */
enum { PM1_STATUS = 0x600, PM1_ENABLE = 0x602, POWER_BUTTON = 1 << 8, SCI = 9 };
enum { COM1 = 0x3f8, LSR = COM1 + 5, DATA_READY = 1, COM1_IER = COM1 + 1, COM1_MCR = COM1 + 4 };
enum { BUTTON_VECTOR = 0x40, TIMER_VECTOR = 0x50, IPI_VECTOR = 0x60, PATIENCE_MS = 5000 };

static volatile uint32_t buttons, ticks, ipis;
static volatile uint32_t wanted, sent;

static void on_button(struct frame *frame)
{
    (void)frame;
    if (inw(PM1_STATUS) & POWER_BUTTON) {
        outw(PM1_STATUS, POWER_BUTTON);
        buttons++;
    }
    apic_eoi();
}

static void on_tick(struct frame *frame)
{
    (void)frame;
    ticks++;
    apic_eoi();
}

static void on_ipi(struct frame *frame)
{
    (void)frame;
    ipis++;
    apic_eoi();
}

static void sender(void *nothing)
{
    (void)nothing;
    for (;;) {
        while (!wanted)
            pause();
        wanted = 0;
        apic_icr(apic_id_of[0], ICR_FIXED | ICR_ASSERT | IPI_VECTOR);
        sent = 1;
    }
}

static void set_up(void)
{
    pic_mask(0xffff);
    handle(BUTTON_VECTOR, on_button);
    handle(TIMER_VECTOR, on_tick);
    handle(IPI_VECTOR, on_ipi);
    ioapic_route(SCI, (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | BUTTON_VECTOR);
    outw(PM1_ENABLE, POWER_BUTTON);
    apic_write(APIC_TIMER_DIVIDE, 0xb); /* by 1 */
    apic_write(APIC_LVT_TIMER, TIMER_ONE_SHOT | TIMER_VECTOR);
}

CHECK(nothing_is_lost)
{
    SKIP_UNLESS(!argument("buttons"), "only the button is asked for");
    EXPECT(start_cpus(10000), "%u CPUs came", (uint64_t)cpus_up);
    set_up();
    EXPECT(start_on_cpu(1, sender, NULL), "CPU 1 is busy");
    for (uint32_t round = 0; round < number_argument("rounds=", 5); round++) {
        uint32_t before = buttons;
        cli();
        ticks = ipis = sent = 0;
        wanted = 1;
        while (!sent)
            pause();
        /* Past when it is saved, or still to come: every other time. */
        apic_write(APIC_TIMER_INITIAL, round & 1 ? 300 * 1000 * 1000 : 1000);
        print("held\n");
        while (!(inb(LSR) & DATA_READY))
            pause();
        inb(COM1);
        bool ipi = wait_for(&ipis, 1, PATIENCE_MS), tick = wait_for(&ticks, 1, PATIENCE_MS);
        bool button = wait_for(&buttons, before + 1, PATIENCE_MS);
        EXPECT(ipi, "round %u: the other CPU's interrupt", (uint64_t)round);
        EXPECT(tick, "round %u: the timer's interrupt", (uint64_t)round);
        EXPECT(button, "round %u: the button's interrupt", (uint64_t)round);
        EXPECT(ipis == 1 && ticks == 1 && buttons == before + 1, "round %u: %u %u %u came",
               (uint64_t)round, (uint64_t)ipis, (uint64_t)ticks, (uint64_t)(buttons - before));
        print("came\n");
    }
}

CHECK(every_button_press)
{
    SKIP_UNLESS(argument("buttons"), "the other interrupts are asked for");
    start_cpus(10000); /* also enables this CPU's APIC */
    set_up();
    print("waiting\n");
    for (uint32_t seen = 0; seen < number_argument("presses=", 2); seen = buttons) {
        while (buttons == seen)
            sti_hlt();
        print("button\n");
    }
}
