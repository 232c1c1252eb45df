#include "guest.h"

enum {
    XAPIC = 0xfee00000,
    IOAPIC = 0xfec00000,
    PM_TIMER = 0x608, /* ACPI 6.5, 4.8.3.3: 3.579545 MHz */
    PM_TIMER_KHZ = 3580,
};

static bool x2apic;

uint32_t apic_read(uint32_t offset)
{
    if (x2apic)
        return rdmsr(MSR_X2APIC + (offset >> 4));
    return *(volatile uint32_t *)(uint64_t)(XAPIC + offset);
}

void apic_write(uint32_t offset, uint32_t value)
{
    if (x2apic)
        wrmsr(MSR_X2APIC + (offset >> 4), value);
    else
        *(volatile uint32_t *)(uint64_t)(XAPIC + offset) = value;
}

void apic_icr(uint32_t destination, uint32_t command)
{
    if (x2apic) {
        wrmsr(MSR_X2APIC + (APIC_ICR >> 4), (uint64_t)destination << 32 | command);
        return;
    }
    apic_write(APIC_ICR + 0x10, destination << 24);
    apic_write(APIC_ICR, command);
    while (apic_read(APIC_ICR) & 1 << 12)
        pause();
}

uint32_t apic_id(void)
{
    uint32_t id = apic_read(APIC_ID);
    return x2apic ? id : id >> 24;
}

void apic_eoi(void) { apic_write(APIC_EOI, 0); }

bool enable_x2apic(void)
{
    if (!(cpuid(1, 0).ecx & 1 << 21))
        return false;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 10);
    x2apic = true;
    return true;
}

void apic_enable(void)
{
    if (x2apic)
        enable_x2apic();
    apic_write(APIC_SPIV, 0x1ff);
    apic_write(APIC_TPR, 0);
}

void pic_mask(uint16_t mask)
{
    outb(0x20, 0x11);
    outb(0x21, PIC_BASE);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, PIC_BASE + 8);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, mask);
    outb(0xa1, mask >> 8);
}

static void ioapic_write(uint32_t number, uint32_t value)
{
    *(volatile uint32_t *)IOAPIC = number;
    *(volatile uint32_t *)(IOAPIC + 0x10ull) = value;
}

static uint32_t ioapic_read(uint32_t number)
{
    *(volatile uint32_t *)IOAPIC = number;
    return *(volatile uint32_t *)(IOAPIC + 0x10ull);
}

void ioapic_route(uint8_t pin, uint64_t entry)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, entry >> 32);
    ioapic_write(0x10 + 2 * pin, entry);
}

uint64_t ioapic_entry(uint8_t pin)
{
    return (uint64_t)ioapic_read(0x11 + 2 * pin) << 32 | ioapic_read(0x10 + 2 * pin);
}

uint64_t measure_tsc(uint32_t ms)
{
    uint64_t begin = rdtsc(); /* first: where the host takes its time, too much is measured */
    uint32_t from = inl(PM_TIMER), ticks;
    do
        ticks = (inl(PM_TIMER) - from) & 0xffffff;
    while (ticks < ms * PM_TIMER_KHZ);
    return (rdtsc() - begin) * PM_TIMER_KHZ / ticks;
}

uint64_t tsc_per_ms(void)
{
    static uint64_t measured;
    if (!measured)
        measured = measure_tsc(5);
    return measured;
}

bool wait_for(volatile uint32_t *counter, uint32_t value, uint32_t ms)
{
    uint64_t end = rdtsc() + ms * tsc_per_ms();
    sti();
    while (*counter < value && rdtsc() < end)
        pause();
    cli();
    return *counter >= value;
}
