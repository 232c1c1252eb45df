/* hotplug RAM_BYTES IMAGE CPUID CPUS: from just before KVM_CREATE_VCPU to the first instruction of
 * the new CPU, its write to AP_PORT. Each line of input is answered, from a fresh VM, with two
 * lines: the nanoseconds for CPUS - 1 new vCPUs, then for as many that were unplugged, parked
 * and plugged again. READY_PORT and AP_PORT are defined on the compiler's command line. */
#define _GNU_SOURCE
#include "vm.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    MOST_CPUS = 255,
    SCI_IRQ = 9,
    GPE0_STS = 0x620,
    FLAGS = 0xcd8 + 4, /* QEMU docs/specs/acpi_cpu_hotplug */
    COMMAND = 0xcd8 + 5,
    DATA = 0xcd8 + 8,
    NEXT_WITH_EVENT = 0,
    INSERT = 1 << 1,
    REMOVE = 1 << 2,
    EJECT = 1 << 3,
    SETTLE_US = 2000,
};

struct cpu {
    struct vcpu vcpu;
    pthread_t thread;
    atomic_int stopping;
};

static int kvm;
static struct vm vm;
static struct cpu cpus[MOST_CPUS];

/* The one CPU that is being plugged or unplugged, and its event bits; guarded by `lock`. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t event_cpu;
static uint8_t event_flags;

static sem_t ready, ejected, started;
static int64_t started_at;

static void set_sci(int level)
{
    struct kvm_irq_level line = {.irq = SCI_IRQ, .level = level};
    control(vm.fd, "KVM_IRQ_LINE", KVM_IRQ_LINE, &line);
}

static void raise_event(uint32_t cpu, uint8_t flag)
{
    pthread_mutex_lock(&lock);
    event_cpu = cpu;
    event_flags = flag;
    pthread_mutex_unlock(&lock);
    set_sci(1);
}

/* The event's CPU is always the selected one and the command never matters: at most one event. */
static void serve_read(uint16_t port, uint8_t *data)
{
    pthread_mutex_lock(&lock);
    if (port == FLAGS)
        *data = event_flags;
    else if (port == DATA)
        memcpy(data, &event_cpu, sizeof event_cpu);
    pthread_mutex_unlock(&lock);
}

static void serve_write(uint16_t port, uint8_t value)
{
    int64_t now = monotonic_ns();
    switch (port) {
    case AP_PORT:
        started_at = now;
        sem_post(&started);
        break;
    case READY_PORT:
        sem_post(&ready);
        break;
    case GPE0_STS:
        set_sci(0);
        break;
    case FLAGS:
        pthread_mutex_lock(&lock);
        event_flags &= ~(value & (INSERT | REMOVE));
        pthread_mutex_unlock(&lock);
        if (value & EJECT)
            sem_post(&ejected);
        break;
    }
}

static void *run(void *argument)
{
    struct cpu *cpu = argument;
    struct kvm_run *page = cpu->vcpu.run;
    while (!cpu->stopping) {
        if (ioctl(cpu->vcpu.fd, KVM_RUN, 0) < 0) {
            if (errno == EINTR || errno == EAGAIN)
                continue;
            fail("KVM_RUN");
        }
        if (page->exit_reason != KVM_EXIT_IO) {
            fprintf(stderr, "KVM_RUN ended with exit reason %u\n", page->exit_reason);
            exit(1);
        }
        uint8_t *data = (uint8_t *)page + page->io.data_offset;
        if (page->io.direction == KVM_EXIT_IO_IN)
            serve_read(page->io.port, data);
        else
            serve_write(page->io.port, *data);
    }
    return NULL;
}

static void start(struct cpu *cpu)
{
    cpu->stopping = 0;
    cpu->vcpu.run->immediate_exit = 0;
    if (pthread_create(&cpu->thread, NULL, run, cpu))
        fail("pthread_create");
}

static void stop(struct cpu *cpu)
{
    cpu->stopping = 1;
    cpu->vcpu.run->immediate_exit = 1;
    pthread_kill(cpu->thread, SIGUSR1);
    pthread_join(cpu->thread, NULL);
}

static void wait_for(sem_t *semaphore, const char *what)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 10;
    while (sem_timedwait(semaphore, &deadline))
        if (errno != EINTR)
            fail(what);
}

static void report(int64_t start_time)
{
    wait_for(&started, "the new CPU did not start");
    printf("%lld ", (long long)(started_at - start_time));
    usleep(SETTLE_US);
}

static void plug_new(const struct cpuid *common, uint32_t id)
{
    struct cpu *cpu = &cpus[id];
    int64_t start_time = monotonic_ns();
    struct cpuid cpuid = cpuid_for(common, id);
    cpu->vcpu = create_vcpu(kvm, &vm, id, &cpuid);
    start(cpu);
    raise_event(id, INSERT);
    report(start_time);
}

static void unplug(uint32_t id)
{
    raise_event(id, REMOVE);
    wait_for(&ejected, "the guest did not eject its CPU");
    stop(&cpus[id]);
    struct kvm_mp_state parked = {.mp_state = KVM_MP_STATE_UNINITIALIZED};
    control(cpus[id].vcpu.fd, "KVM_SET_MP_STATE", KVM_SET_MP_STATE, &parked);
}

static void plug_parked(uint32_t id)
{
    struct cpu *cpu = &cpus[id];
    int64_t start_time = monotonic_ns();
    control(cpu->vcpu.fd, "KVM_SET_LAPIC", KVM_SET_LAPIC, &cpu->vcpu.lapic);
    start(cpu); /* INIT resets the rest */
    raise_event(id, INSERT);
    report(start_time);
}

static void interrupt_run(int signal_number)
{
    (void)signal_number;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = interrupt_run};

    if (argc != 5)
        return 2;
    size_t ram_size = strtoul(argv[1], NULL, 0);
    struct file image = read_file(argv[2]);
    struct cpuid cpuid = read_cpuid(argv[3]);
    uint32_t count = strtoul(argv[4], NULL, 0);
    if (count > MOST_CPUS)
        return 2;
    sigaction(SIGUSR1, &action, NULL);
    sem_init(&ready, 0, 0);
    sem_init(&ejected, 0, 0);
    sem_init(&started, 0, 0);
    kvm = open_kvm();

    for (;;) {
        next_request();
        vm = create_vm(kvm, ram_size);
        struct cpuid boot = cpuid_for(&cpuid, 0);
        cpus[0].vcpu = create_vcpu(kvm, &vm, 0, &boot);
        enter_protected_mode(&vm, &cpus[0].vcpu, &image);
        start(&cpus[0]);
        wait_for(&ready, "the guest did not start");
        usleep(SETTLE_US);

        for (uint32_t id = 1; id < count; id++)
            plug_new(&cpuid, id);
        printf("\n");
        for (uint32_t id = 1; id < count; id++) {
            unplug(id);
            usleep(SETTLE_US);
            plug_parked(id);
        }
        printf("\n");

        for (uint32_t id = 0; id < count; id++)
            stop(&cpus[id]);
        for (uint32_t id = 0; id < count; id++)
            destroy_vcpu(kvm, &cpus[id].vcpu);
        destroy_vm(&vm);
    }
}
