/* INIT and SIPI: every CPU comes up, under its APIC id. */
#include "guest.h"

CHECK(all_cpus_come_up)
{
    if (argument("x2apic"))
        SKIP_UNLESS(enable_x2apic(), "the CPU has no x2APIC");
    bool all = start_cpus(60000);
    print("cpus %u of %u\n", (uint64_t)cpus_up, (uint64_t)cpu_count());
    EXPECT(all, "only %u CPUs came", (uint64_t)cpus_up);
}

CHECK(apic_ids_are_those_of_cpuid)
{
    uint32_t lowest = ~0u, highest = 0;
    for (uint32_t cpu = 0; cpu < cpus_up; cpu++) {
        uint32_t id = apic_id_of[cpu];
        for (uint32_t other = 0; other < cpu && cpus_up <= 64; other++)
            EXPECT(apic_id_of[other] != id, "two CPUs have APIC id %u", (uint64_t)id);
        lowest = id < lowest ? id : lowest;
        highest = id > highest ? id : highest;
    }
    print("apic ids %u to %u\n", (uint64_t)lowest, (uint64_t)highest);
    struct registers topology = cpuid(0xb, 0);
    if (cpuid(0, 0).eax >= 0xb && topology.ebx)
        EXPECT(topology.edx == apic_id(), "leaf 0xb says %u, the APIC %u", (uint64_t)topology.edx,
               (uint64_t)apic_id());
    EXPECT(cpuid(1, 0).ebx >> 24 == (apic_id() & 0xff), "leaf 1 says %u, the APIC %u",
           (uint64_t)(cpuid(1, 0).ebx >> 24), (uint64_t)apic_id());
}

static volatile uint32_t visits;

static void visit(void *number)
{
    (void)number;
    __atomic_fetch_add(&visits, 1, __ATOMIC_SEQ_CST);
}

CHECK(each_cpu_runs_what_it_is_given)
{
    for (uint32_t cpu = 1; cpu < cpus_up; cpu++)
        EXPECT(on_cpu(cpu, visit, NULL), "CPU %u did not", (uint64_t)cpu);
    EXPECT(visits == cpus_up - 1, "%u visits", (uint64_t)visits);
}
