/* A guest that starts each CPU that is plugged and ejects each one that it is asked for.
 *
 * It ends after `rounds=N` ejections. With `ost=1` it reports how an ejection went, with `refuse=1`
 * that it does none.
 */
#include "guest.h"

/* QEMU's docs/specs/acpi_cpu_hotplug.rst */
enum { SELECT = 0xcd8, FLAGS = 0xcdc, COMMAND = 0xcdd, DATA_PORT = 0xce0, NEXT_WITH_EVENT = 0 };
enum { INSERTED = 2, REMOVED = 4, EJECT = 8 };
enum { OST_EVENT = 1, OST_STATUS = 2, DEVICE_CHECK = 1, EJECT_REQUEST = 3, SUCCESS = 0, BUSY = 0x80 };

static void report(uint32_t event, uint32_t status)
{
    outb(COMMAND, OST_EVENT);
    outl(DATA_PORT, event);
    outb(COMMAND, OST_STATUS);
    outl(DATA_PORT, status);
}

/* What a CPU finds when it comes, and then leaves behind for the one after it. */
struct found {
    uint64_t tsc, pat, lstar, dr0;
};

static void look_around(void *place)
{
    volatile struct found *found = place;
    uint64_t dr0;
    asm volatile("mov %%dr0, %0" : "=r"(dr0));
    found->dr0 = dr0;
    found->pat = rdmsr(MSR_PAT);
    found->lstar = rdmsr(MSR_LSTAR);
    found->tsc = rdtsc();
    asm volatile("mov %0, %%dr0" : : "r"(0x1234ul));
    wrmsr(MSR_PAT, 0x0007040600070400);
    wrmsr(MSR_LSTAR, 0x5678);
    wrmsr(MSR_TSC, 1ull << 50);
}

CHECK(plugged_and_ejected)
{
    uint32_t plugged = 0, ejected = 0, rounds = number_argument("rounds=", 3);
    uint32_t ost = number_argument("ost=", 0), refuse = number_argument("refuse=", 0);
    print("waiting\n");
    while (ejected < rounds) {
        outb(COMMAND, NEXT_WITH_EVENT);
        uint32_t slot = inl(DATA_PORT), flags = inb(FLAGS);
        if (flags & INSERTED) {
            outb(FLAGS, INSERTED);
            forget_cpus();
            EXPECT(start_cpu(slot, 2000), "CPU %u did not come, plug %u", (uint64_t)slot,
                   (uint64_t)plugged);
            plugged++;
            report(DEVICE_CHECK, SUCCESS);
            struct found found;
            uint64_t before = rdtsc();
            EXPECT(on_cpu(1, look_around, &found), "CPU %u does not answer", (uint64_t)slot);
            uint64_t after = rdtsc();
            EXPECT(found.tsc >= before && found.tsc <= after, "plug %u: its TSC %x is not from %x to %x",
                   (uint64_t)plugged, found.tsc, before, after);
            EXPECT(found.pat == 0x0007040600070406 && !found.lstar && !found.dr0,
                   "plug %u: PAT %x LSTAR %x DR0 %x", (uint64_t)plugged, found.pat, found.lstar,
                   found.dr0);
        } else if ((flags & REMOVED) && refuse) {
            outb(FLAGS, REMOVED);
            report(EJECT_REQUEST, BUSY);
        } else if (flags & REMOVED) {
            outb(FLAGS, EJECT);
            ejected++;
            if (ost)
                report(EJECT_REQUEST, SUCCESS);
        }
    }
    print("%u plugged, %u ejected\n", (uint64_t)plugged, (uint64_t)ejected);
    EXPECT(plugged == ejected, "%u plugged", (uint64_t)plugged);
}
