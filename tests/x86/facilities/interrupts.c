/* Interrupts: the PIC, the I/O APIC, and CPUs to themselves and to one another. */
#include "guest.h"

enum { VECTOR = 0x40, PIT_HZ = 1193182, LINE = 5 };

static volatile uint32_t count, others;
static volatile uint32_t order;

static void on_interrupt(struct frame *frame)
{
    (void)frame;
    __atomic_fetch_add(apic_id() == apic_id_of[0] ? &count : &others, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static void on_pic_interrupt(struct frame *frame)
{
    (void)frame;
    count++;
    outb(0x20, 0x20);
}

static void start_pit(uint32_t hz)
{
    outb(0x43, 0x34); /* counter 0, both bytes, mode 2 */
    outb(0x40, PIT_HZ / hz);
    outb(0x40, PIT_HZ / hz >> 8);
}

static bool has_pic(void)
{
    outb(0x21, 0xa5);
    bool found = inb(0x21) == 0xa5;
    outb(0x21, 0xff);
    return found;
}

static bool has_testdev(void)
{
    outl(0xe0, 0x12345678);
    return inl(0xe0) == 0x12345678;
}

CHECK(timer_through_the_pic)
{
    SKIP_UNLESS(has_pic(), "there is no PIC");
    count = 0;
    handle(PIC_BASE, on_pic_interrupt);
    pic_mask(0xfffe);
    start_pit(500);
    bool came = wait_for(&count, 3, 2000);
    pic_mask(0xffff);
    EXPECT(came, "%u interrupts", (uint64_t)count);
}

CHECK(timer_through_the_ioapic)
{
    SKIP_UNLESS(has_pic(), "there is no PIT");
    start_cpus(10000); /* also enables this CPU's APIC */
    count = 0;
    handle(VECTOR, on_interrupt);
    ioapic_route(2, (uint64_t)apic_id() << 56 | VECTOR);
    bool came = wait_for(&count, 3, 2000);
    ioapic_route(2, IOAPIC_MASKED);
    EXPECT(came, "%u interrupts", (uint64_t)count);
    EXPECT(ioapic_entry(2) & IOAPIC_MASKED, "the entry reads as %x", ioapic_entry(2));
}

static volatile uint64_t entry_inside;

static void on_line(struct frame *frame)
{
    (void)frame;
    count++;
    entry_inside = ioapic_entry(LINE);
    outb(0x2000 + LINE, 0);
    apic_eoi();
}

static void on_line_left_up(struct frame *frame)
{
    (void)frame;
    if (++count == 3)
        outb(0x2000 + LINE, 0);
    apic_eoi();
}

CHECK(edge_of_a_line_is_one_interrupt)
{
    SKIP_UNLESS(has_testdev(), "the machine has no testdev");
    start_cpus(10000);
    count = 0;
    handle(VECTOR, on_interrupt);
    ioapic_route(LINE, (uint64_t)apic_id() << 56 | VECTOR);
    outb(0x2000 + LINE, 1);
    bool came = wait_for(&count, 1, 1000);
    EXPECT(came, "none came");
    EXPECT(!wait_for(&count, 2, 20), "it came again");
    outb(0x2000 + LINE, 0);
    EXPECT(!wait_for(&count, 2, 20), "it came when the line fell");
    ioapic_route(LINE, IOAPIC_MASKED);
}

CHECK(level_of_a_line_waits_for_its_end)
{
    SKIP_UNLESS(has_testdev(), "the machine has no testdev");
    start_cpus(10000);
    count = 0;
    handle(VECTOR, on_line);
    ioapic_route(LINE, (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | VECTOR);
    outb(0x2000 + LINE, 1);
    bool came = wait_for(&count, 1, 1000);
    EXPECT(came, "none came");
    EXPECT(!wait_for(&count, 2, 20), "it came again with the line down");
    EXPECT(entry_inside & 1 << 14, "Remote IRR was clear in the handler: %x", entry_inside);
    EXPECT(!(ioapic_entry(LINE) & 1 << 14), "Remote IRR is still set: %x", ioapic_entry(LINE));
}

CHECK(level_of_a_line_left_up_comes_again)
{
    SKIP_UNLESS(has_testdev(), "the machine has no testdev");
    count = 0;
    handle(VECTOR, on_line_left_up);
    outb(0x2000 + LINE, 1);
    bool came = wait_for(&count, 3, 1000);
    EXPECT(came, "%u came", (uint64_t)count);
    EXPECT(!wait_for(&count, 4, 20), "it came again with the line down");
    ioapic_route(LINE, IOAPIC_MASKED);
}

CHECK(masked_line_waits)
{
    SKIP_UNLESS(has_testdev(), "the machine has no testdev");
    count = 0;
    handle(VECTOR, on_line);
    uint64_t entry = (uint64_t)apic_id() << 56 | IOAPIC_LEVEL | VECTOR;
    ioapic_route(LINE, entry | IOAPIC_MASKED);
    outb(0x2000 + LINE, 1);
    EXPECT(!wait_for(&count, 1, 20), "it came though masked");
    ioapic_route(LINE, entry);
    bool came = wait_for(&count, 1, 1000);
    ioapic_route(LINE, IOAPIC_MASKED);
    EXPECT(came, "it did not come when unmasked");
}

CHECK(self_ipi)
{
    start_cpus(10000);
    count = 0;
    handle(VECTOR, on_interrupt);
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, 1, 1000), "none came");
}

static volatile uint32_t in_service, in_service_after;

static void on_look(struct frame *frame)
{
    (void)frame;
    in_service = apic_read(APIC_ISR + 0x10 * (VECTOR / 32));
    apic_eoi();
    in_service_after = apic_read(APIC_ISR + 0x10 * (VECTOR / 32));
    count++;
}

CHECK(vector_is_in_service_while_it_is_handled)
{
    count = 0;
    handle(VECTOR, on_look);
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, 1, 1000), "none came");
    EXPECT(in_service & 1u << VECTOR % 32, "ISR %x", (uint64_t)in_service);
    EXPECT(!(in_service_after & 1u << VECTOR % 32), "ISR after EOI %x", (uint64_t)in_service_after);
}

CHECK(pending_interrupt_comes_as_soon_as_it_may)
{
    uint32_t windows = 0;
    count = 0;
    handle(VECTOR, on_interrupt);
    cli();
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    for (; !count && windows < 100000; windows++)
        asm volatile("sti; nop; nop; nop; nop; cli" : : : "memory");
    EXPECT(windows == 1, "%u times interrupts were on for some instructions, and it did not come",
           (uint64_t)windows - 1);
}

CHECK(halted_cpu_wakes)
{
    count = 0;
    handle(VECTOR, on_interrupt);
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    sti_hlt();
    EXPECT(count == 1, "%u interrupts", (uint64_t)count);
}

static void on_first(struct frame *frame)
{
    (void)frame;
    order = order << 4 | 1;
    apic_eoi();
}

static void on_second(struct frame *frame)
{
    (void)frame;
    order = order << 4 | 2;
    apic_eoi();
    count = 1;
}

CHECK(higher_vector_comes_first)
{
    order = count = 0;
    handle(VECTOR + 0x20, on_first);
    handle(VECTOR, on_second);
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    apic_icr(0, ICR_SELF | ICR_ASSERT | (VECTOR + 0x20));
    EXPECT(wait_for(&count, 1, 1000), "none came");
    EXPECT(order == 0x12, "order %x", (uint64_t)order);
}

CHECK(task_priority_holds_back)
{
    count = 0;
    handle(VECTOR, on_interrupt);
    apic_write(APIC_TPR, 0xf0);
    apic_icr(0, ICR_SELF | ICR_ASSERT | VECTOR);
    bool early = wait_for(&count, 1, 20);
    uint32_t pending = apic_read(APIC_IRR + 0x10 * (VECTOR / 32));
    apic_write(APIC_TPR, 0);
    EXPECT(!early, "it came");
    EXPECT(pending & 1u << VECTOR % 32, "IRR %x", (uint64_t)pending);
    EXPECT(wait_for(&count, 1, 1000), "it did not come when the priority fell");
}

CHECK(cr8_is_the_task_priority)
{
    WRITE_CR(8, 5);
    uint32_t priority = apic_read(APIC_TPR);
    WRITE_CR(8, 0);
    EXPECT(priority == 0x50, "TPR %x", (uint64_t)priority);
}

CHECK(ipi_to_another_cpu)
{
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    others = 0;
    handle(VECTOR, on_interrupt);
    apic_icr(apic_id_of[1], ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&others, 1, 1000), "none came");
}

CHECK(ipi_to_a_logical_destination)
{
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    others = 0;
    handle(VECTOR, on_interrupt);
    void logical(void *bit);
    EXPECT(on_cpu(1, logical, (void *)2), "CPU 1 does not answer");
    apic_icr(2, ICR_LOGICAL | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&others, 1, 1000), "none came");
}

void logical(void *bit)
{
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, (uint32_t)(uint64_t)bit << 24);
}

CHECK(ipi_to_the_lowest_priority)
{
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    logical((void *)1);
    others = count = 0;
    handle(VECTOR, on_interrupt);
    apic_icr(3, ICR_LOGICAL | ICR_LOWEST | ICR_ASSERT | VECTOR);
    bool here = wait_for(&count, 1, 100);
    EXPECT(here || wait_for(&others, 1, 1000), "none came");
    EXPECT(count + others == 1, "%u came", (uint64_t)(count + others));
}

CHECK(ipi_to_all_and_to_all_others)
{
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    others = count = 0;
    handle(VECTOR, on_interrupt);
    apic_icr(0, ICR_ALL | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&count, 1, 1000) && wait_for(&others, cpus_up - 1, 1000), "%u here, %u others",
           (uint64_t)count, (uint64_t)others);
    apic_icr(0, ICR_OTHERS | ICR_ASSERT | VECTOR);
    EXPECT(wait_for(&others, 2 * (cpus_up - 1), 1000), "%u others", (uint64_t)others);
    EXPECT(count == 1, "%u here", (uint64_t)count);
}

CHECK(nmi_to_itself)
{
    count = 0;
    handle(NMI, on_interrupt);
    apic_icr(apic_id(), ICR_NMI | ICR_ASSERT);
    EXPECT(wait_for(&count, 1, 1000), "none came");
}

CHECK(nmi_to_another_cpu)
{
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    others = 0;
    handle(NMI, on_interrupt);
    apic_icr(apic_id_of[1], ICR_NMI | ICR_ASSERT);
    EXPECT(wait_for(&others, 1, 1000), "none came");
    void nothing(void *);
    EXPECT(on_cpu(1, nothing, NULL), "CPU 1 does not answer any more");
}

void nothing(void *argument) { (void)argument; }
