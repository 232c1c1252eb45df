#include "guest.h"

enum { TRAMPOLINE = 0x8000, WAKE = 0xef, CPU_SELECT = 0xcd8, CPU_FLAGS = 0xcdc };

struct work {
    void (*volatile function)(void *);
    void *volatile argument;
};
static struct work work[MAX_CPUS];
volatile uint32_t cpus_up = 1;
uint32_t apic_id_of[MAX_CPUS];
static uint32_t all_cpus = 1;

extern char trampoline[], trampoline_end[], trampoline_cr3[], trampoline_cr4[];
void apic_enable(void);

uint32_t cpu_count(void)
{
    uint32_t count = 0;
    for (uint32_t slot = 0, last = 0; slot < MAX_CPUS && slot < last + 64; slot++) {
        outl(CPU_SELECT, slot);
        if (inb(CPU_FLAGS) & 1) {
            count++;
            last = slot;
        }
    }
    return count;
}

static void on_wake(struct frame *frame)
{
    (void)frame;
    apic_eoi();
}

void other_cpu_main(void)
{
    apic_enable();
    uint32_t id = apic_id(), number = __atomic_fetch_add(&all_cpus, 1, __ATOMIC_SEQ_CST);
    apic_id_of[number] = id;
    __atomic_fetch_add(&cpus_up, 1, __ATOMIC_SEQ_CST);
    for (;;) {
        struct work *mine = &work[number];
        while (!mine->function)
            sti_hlt();
        mine->function(mine->argument);
        mine->function = NULL;
    }
}

static void prepare(void)
{
    handle(WAKE, on_wake);
    apic_enable();
    apic_id_of[0] = apic_id();
    memcpy((void *)TRAMPOLINE, trampoline, trampoline_end - trampoline);
    *(uint32_t *)(TRAMPOLINE + (trampoline_cr3 - trampoline)) = READ_CR(3);
    *(uint32_t *)(TRAMPOLINE + (trampoline_cr4 - trampoline)) = READ_CR(4);
}

bool start_cpus(uint32_t ms)
{
    uint32_t count = cpu_count();
    if (cpus_up == count)
        return true;
    prepare();
    apic_icr(0, ICR_OTHERS | ICR_INIT | ICR_ASSERT);
    apic_icr(0, ICR_OTHERS | ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
    wait_for(&cpus_up, count, ms);
    return cpus_up == count;
}

void forget_cpus(void)
{
    extern uint32_t cpus_begun;
    cpus_begun = all_cpus = cpus_up = 1;
}

bool start_cpu(uint32_t id, uint32_t ms)
{
    uint32_t before = cpus_up;
    prepare();
    apic_icr(id, ICR_INIT | ICR_ASSERT);
    apic_icr(id, ICR_SIPI | ICR_ASSERT | TRAMPOLINE >> 12);
    return wait_for(&cpus_up, before + 1, ms);
}

bool start_on_cpu(uint32_t cpu, void (*function)(void *), void *argument)
{
    if (cpu >= cpus_up || work[cpu].function)
        return false;
    work[cpu].argument = argument;
    work[cpu].function = function;
    apic_icr(apic_id_of[cpu], ICR_ASSERT | WAKE);
    return true;
}

bool on_cpu(uint32_t cpu, void (*function)(void *), void *argument)
{
    if (!start_on_cpu(cpu, function, argument))
        return false;
    uint64_t end = rdtsc() + 2000 * tsc_per_ms();
    while (work[cpu].function && rdtsc() < end)
        pause();
    return !work[cpu].function;
}
