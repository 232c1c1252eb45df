/* Accesses to every port and every address outside of memory, at random.
 *
 * `ms=N` says for how long, `seed=N` with what to begin; with `reckless` also what resets, powers
 * off or ends the run.
 */
#include "guest.h"

enum { DEVICES = 0xc0000000u, IOAPIC = 0xfec00000u, LOCAL_APIC = 0xfee00000u };

static uint64_t state;

/* Marsaglia's xorshift64* */
static uint64_t random_number(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ull;
}

/* Ports whose values end the run or start it anew: PM1 control, reset, exit, keyboard, A20. */
static bool ends_the_run(uint32_t port, uint32_t size)
{
    static const uint16_t such[][2] = {
        {0x604, 0x605}, {0xcf9, 0xcf9}, {0xf4, 0xf7}, {0x64, 0x64}, {0x92, 0x92}};
    for (size_t i = 0; i < sizeof such / sizeof *such; i++)
        if (port <= such[i][1] && port + size > such[i][0])
            return true;
    return false;
}

static void access_port(bool reckless)
{
    static const uint16_t busy[] = {0x20, 0x40, 0x60, 0x70, 0xe0, 0x3f8, 0x2f8, 0x510, 0x600,
                                    0xcd8, 0xcf8, 0x2000};
    uint64_t r = random_number();
    uint32_t value = random_number(), size = 1u << (r >> 8 & 0xff) % 3;
    uint16_t port = r >> 16;
    if (r & 3) /* mostly where devices are */
        port = busy[(r >> 32) % (sizeof busy / sizeof *busy)] + (r >> 48 & 0x1f);
    if (!reckless && ends_the_run(port, size))
        return;
    switch (size | (r & 4)) {
    case 1:
        inb(port);
        break;
    case 2:
        inw(port);
        break;
    case 4:
        inl(port);
        break;
    case 5:
        outb(port, value);
        break;
    case 6:
        outw(port, value);
        break;
    default:
        if (r & 4)
            outl(port, value);
    }
}

static void access_memory(bool reckless)
{
    static const uint32_t busy[] = {IOAPIC, 0xfeb00000, 0xfeb00200, 0xff000000, 0xfed00000};
    uint64_t r = random_number(), value = random_number();
    uint32_t address = DEVICES + (r >> 16) % (0u - DEVICES);
    if (r & 3)
        address = busy[(r >> 32) % (sizeof busy / sizeof *busy)] + (r >> 48 & 0x1ff);
    volatile void *place = (volatile void *)(uint64_t)(address & ~7u);
    bool write = r & 4;
    /* An INIT or NMI would end this CPU's work, so their registers are read only. */
    if (!reckless && write && address - IOAPIC < 0x1000)
        value &= ~0x700ull;
    if (!reckless && write && address - LOCAL_APIC < 0x1000)
        write = false;
    switch (r >> 8 & 3) {
    case 0:
        write ? (void)(*(volatile uint8_t *)place = value) : (void)*(volatile uint8_t *)place;
        break;
    case 1:
        write ? (void)(*(volatile uint16_t *)place = value) : (void)*(volatile uint16_t *)place;
        break;
    case 2:
        write ? (void)(*(volatile uint32_t *)place = value) : (void)*(volatile uint32_t *)place;
        break;
    case 3:
        write ? (void)(*(volatile uint64_t *)place = value) : (void)*(volatile uint64_t *)place;
        break;
    }
}

CHECK(random_accesses)
{
    bool reckless = argument("reckless");
    uint64_t ms = number_argument("ms=", 500), count = 0;
    state = number_argument("seed=", 1) | 1ull << 40;
    uint64_t end = rdtsc() + ms * tsc_per_ms();
    while (rdtsc() < end)
        for (int i = 0; i < 64; i++, count++)
            random_number() & 1 ? access_port(reckless) : access_memory(reckless);
    outb(0x3fb, 3); /* the serial port, so that this can be said */
    outb(0x3f9, 0);
    outb(0x3fc, 3);
    print("\naccesses %u\n", count);
}
