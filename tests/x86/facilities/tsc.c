/* The time-stamp counter: of one CPU, between CPUs, and how fast it is said to be. */
#include "guest.h"

static volatile uint64_t latest, backwards;
static volatile uint32_t running, go;

CHECK(it_only_grows)
{
    uint64_t last = rdtsc();
    for (int i = 0; i < 10000; i++) {
        uint64_t now = rdtsc();
        EXPECT(now >= last, "from %x to %x", last, now);
        last = now;
    }
}

static void compare(void *rounds)
{
    __atomic_fetch_add(&running, 1, __ATOMIC_SEQ_CST);
    while (!go)
        pause();
    for (uint64_t i = 0; i < (uint64_t)rounds; i++) {
        uint64_t seen = __atomic_load_n(&latest, __ATOMIC_SEQ_CST);
        asm volatile("lfence" : : : "memory");
        uint64_t now = rdtsc();
        if (now < seen && seen - now > backwards)
            backwards = seen - now;
        while (now > seen &&
               !__atomic_compare_exchange_n(&latest, (uint64_t *)&seen, now, 0, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST))
            ;
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_SEQ_CST);
}

CHECK(no_cpu_is_behind_another)
{
    enum { ROUNDS = 3000 };
    EXPECT(start_cpus(10000), "%u CPUs came", (uint64_t)cpus_up);
    SKIP_UNLESS(cpus_up > 1, "there is one CPU");
    for (uint32_t cpu = 1; cpu < cpus_up; cpu++)
        EXPECT(start_on_cpu(cpu, compare, (void *)ROUNDS), "CPU %u is busy", (uint64_t)cpu);
    while (running < cpus_up - 1)
        pause();
    go = 1;
    compare((void *)ROUNDS);
    while (running)
        pause();
    EXPECT(!backwards, "by %u ticks", backwards);
}

static void own_tsc(void *place) { *(volatile uint64_t *)place = rdtsc(); }

CHECK(a_cpu_looked_at_between_two_looks_here)
{
    for (uint32_t cpu = 1; cpu < cpus_up; cpu++) {
        uint64_t there, before = rdtsc();
        EXPECT(on_cpu(cpu, own_tsc, &there), "CPU %u does not answer", (uint64_t)cpu);
        uint64_t after = rdtsc();
        EXPECT(there >= before && there <= after, "CPU %u: %x is not from %x to %x", (uint64_t)cpu,
               there, before, after);
    }
}

CHECK(it_runs_as_fast_as_kvm_says)
{
    struct registers top = cpuid(0x40000000, 0);
    SKIP_UNLESS(top.eax >= 0x40000010, "KVM does not say (no leaf 0x40000010)");
    uint64_t told = cpuid(0x40000010, 0).eax, measured = measure_tsc(50);
    for (int i = 0; i < 3; i++) { /* a busy host makes it too much, never too little */
        uint64_t again = measure_tsc(50);
        measured = again < measured ? again : measured;
    }
    print("tsc %u kHz told, %u measured\n", told, measured);
    EXPECT(measured > told - told / 50 && measured < told + told / 50, "%u kHz, measured %u", told,
           measured);
    EXPECT(cpuid(0x40000010, 0).ebx == 1000000, "the APIC's timer: %u kHz",
           (uint64_t)cpuid(0x40000010, 0).ebx);
}

CHECK(rdtscp_also_says_whose_it_is)
{
    SKIP_UNLESS(cpuid(0x80000001, 0).edx & 1 << 27, "the CPU has no rdtscp");
    uint32_t low, high, who;
    wrmsr(MSR_TSC_AUX, 0x1234);
    uint64_t before = rdtsc();
    asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(who));
    uint64_t now = (uint64_t)high << 32 | low;
    EXPECT(who == 0x1234, "ecx %x", (uint64_t)who);
    EXPECT(now >= before && now <= rdtsc(), "%x", now);
}

CHECK(rdpid)
{
    SKIP_UNLESS(cpuid(7, 0).ecx & 1 << 22, "the CPU has no rdpid");
    uint64_t who;
    wrmsr(MSR_TSC_AUX, 0x4321);
    asm volatile("rdpid %0" : "=r"(who));
    EXPECT(who == 0x4321, "%x", who);
}

CHECK(adjusting_it)
{
    SKIP_UNLESS(cpuid(7, 0).ebx & 1 << 1, "the CPU has no TSC_ADJUST");
    uint64_t step = 1ull << 40, before = rdtsc(), old = rdmsr(MSR_TSC_ADJUST);
    wrmsr(MSR_TSC_ADJUST, old + step);
    uint64_t after = rdtsc();
    EXPECT(rdmsr(MSR_TSC_ADJUST) == old + step, "it reads as %x", rdmsr(MSR_TSC_ADJUST));
    wrmsr(MSR_TSC_ADJUST, old);
    EXPECT(after - before >= step && after - before < step + (1ull << 36), "it moved by %x",
           after - before);
}

CHECK(setting_it)
{
    uint64_t back = rdtsc();
    wrmsr(MSR_TSC, 1ull << 50);
    uint64_t now = rdtsc();
    wrmsr(MSR_TSC, back);
    EXPECT(now >= 1ull << 50 && now < (1ull << 50) + (1ull << 36), "%x", now);
}
