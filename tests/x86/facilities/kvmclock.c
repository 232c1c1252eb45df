/* KVM's paravirtual clock, and the other MSRs it shares with guests. */
#include "guest.h"

enum {
    WALL_CLOCK = 0x4b564d00,
    SYSTEM_TIME = 0x4b564d01,
    STEAL_TIME = 0x4b564d03,
    PV_EOI = 0x4b564d04,
    PM_TIMER = 0x608,
    STABLE = 1,
};

/* Documentation/virt/kvm/x86/msr.rst */
struct time_info {
    uint32_t version, pad0;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_to_system_mul;
    int8_t tsc_shift;
    uint8_t flags, pad[2];
};
static volatile struct time_info info[2] __attribute__((aligned(64)));
static volatile struct {
    uint32_t version, seconds, nanoseconds;
} wall __attribute__((aligned(64)));
static volatile uint64_t steal[8] __attribute__((aligned(64)));

static uint32_t features(void) { return cpuid(0x40000001, 0).eax; }

static uint64_t nanoseconds_of(const volatile struct time_info *from)
{
    uint32_t version;
    uint64_t result;
    do {
        version = from->version;
        uint64_t delta = rdtsc() - from->tsc_timestamp;
        delta = from->tsc_shift < 0 ? delta >> -from->tsc_shift : delta << from->tsc_shift;
        result = from->system_time +
                 (uint64_t)(((unsigned __int128)delta * from->tsc_to_system_mul) >> 32);
    } while (version & 1 || version != from->version);
    return result;
}

CHECK(signature)
{
    struct registers r = cpuid(0x40000000, 0);
    char name[13] = {0};
    memcpy(name, &r.ebx, 4);
    memcpy(name + 4, &r.ecx, 4);
    memcpy(name + 8, &r.edx, 4);
    EXPECT(!memcmp(name, "KVMKVMKVM\0\0\0", 12), "'%s'", name);
    EXPECT(r.eax >= 0x40000001, "highest leaf %x", (uint64_t)r.eax);
}

CHECK(clock_advances_with_the_acpi_timer)
{
    SKIP_UNLESS(features() & 1 << 3, "the CPU has no kvmclock");
    wrmsr(SYSTEM_TIME, (uint64_t)&info[0] | 1);
    EXPECT(info[0].version && !(info[0].version & 1), "version %u", (uint64_t)info[0].version);
    uint64_t passed, expected;
    for (int i = 0; i < 3; i++) { /* a host that takes its time between two reads */
        uint64_t begin = nanoseconds_of(&info[0]);
        uint32_t from = inl(PM_TIMER), ticks;
        do
            ticks = (inl(PM_TIMER) - from) & 0xffffff;
        while (ticks < 3579545 / 20);
        passed = nanoseconds_of(&info[0]) - begin;
        expected = ticks * 1000000000ull / 3579545;
        if (passed > expected - expected / 20 && passed < expected + expected / 20)
            return;
    }
    fail("%u ns in %u ns of the ACPI timer", passed, expected);
}

CHECK(clock_is_stable_where_it_says_so)
{
    SKIP_UNLESS(features() & 1 << 24, "the CPU has no kvmclock-stable-bit");
    print("kvmclock flags %x\n", (uint64_t)info[0].flags);
    SKIP_UNLESS(info[0].flags & STABLE, "this host's TSC is not stable");
    uint64_t last = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t now = nanoseconds_of(&info[0]);
        EXPECT(now >= last, "it went back from %u to %u ns", last, now);
        last = now;
    }
}

static void other_clock(void *result)
{
    wrmsr(SYSTEM_TIME, (uint64_t)&info[1] | 1);
    *(volatile uint64_t *)result = nanoseconds_of(&info[1]);
}

CHECK(clocks_of_two_cpus_agree)
{
    SKIP_UNLESS(features() & 1 << 3, "the CPU has no kvmclock");
    EXPECT(start_cpus(10000), "%u CPUs came", (uint64_t)cpus_up);
    uint64_t there, before = nanoseconds_of(&info[0]);
    EXPECT(on_cpu(1, other_clock, &there), "CPU 1 does not answer");
    uint64_t after = nanoseconds_of(&info[0]), slack = info[0].flags & STABLE ? 0 : 1000000;
    EXPECT(there + slack >= before && there <= after + slack, "%u is not from %u to %u", there,
           before, after);
}

CHECK(wall_clock_is_of_this_time)
{
    SKIP_UNLESS(features() & 1 << 3, "the CPU has no kvmclock");
    wrmsr(WALL_CLOCK, (uint64_t)&wall);
    EXPECT(wall.version && !(wall.version & 1), "version %u", (uint64_t)wall.version);
    EXPECT(wall.seconds > 1735689600 && wall.nanoseconds < 1000000000, "%u s %u ns",
           (uint64_t)wall.seconds, (uint64_t)wall.nanoseconds);
}

CHECK(steal_time)
{
    SKIP_UNLESS(features() & 1 << 5, "the CPU has no kvm-steal-time");
    wrmsr(STEAL_TIME, (uint64_t)steal | 1);
    EXPECT(rdmsr(STEAL_TIME) == ((uint64_t)steal | 1), "it reads as %x", rdmsr(STEAL_TIME));
    wrmsr(STEAL_TIME, 0);
}

CHECK(paravirtual_eoi)
{
    SKIP_UNLESS(features() & 1 << 6, "the CPU has no kvm-pv-eoi");
    wrmsr(PV_EOI, (uint64_t)&steal[4] | 1);
    EXPECT(rdmsr(PV_EOI) == ((uint64_t)&steal[4] | 1), "it reads as %x", rdmsr(PV_EOI));
    wrmsr(PV_EOI, 0);
}

CHECK(clock_turned_off)
{
    wrmsr(SYSTEM_TIME, 0);
    uint32_t version = info[0].version;
    uint64_t end = rdtsc() + 10 * tsc_per_ms();
    while (rdtsc() < end)
        pause();
    EXPECT(info[0].version == version, "it is still written");
}
