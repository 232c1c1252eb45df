#include "run.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SERVED = -0x10000, NOT_SERVED = -0x10001 }; /* outside the range of -errno */

/* ---- the kick signal ---- */

#define KICK_SIGNAL (SIGRTMIN + 3)

static __thread volatile sig_atomic_t kick_signal_seen;
static __thread int kick_signal_unblocked;

static void on_kick_signal(int signal_number)
{
    (void)signal_number;
    kick_signal_seen = 1;
}

static void install_kick_handler(void)
{
    struct sigaction action = {.sa_handler = on_kick_signal}; /* no SA_RESTART: break KVM_RUN */
    sigaction(KICK_SIGNAL, &action, NULL);
}

static void unblock_kick_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- values in the run page ---- */

static uint64_t load(const uint8_t *data, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && i < 8; i++)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        value = value << 8 | data[i];
#else
        value |= (uint64_t)data[i] << 8 * i;
#endif
    return value;
}

static void store(uint8_t *data, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size && i < 8; i++)
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
        data[size - 1 - i] = value >> 8 * i;
#else
        data[i] = value >> 8 * i;
#endif
}

/* ---- devices served here ---- */

int cpufw_bus_add(struct cpufw_bus *bus, int space, uint64_t base, uint64_t length,
                  const struct cpufw_device_ops *ops, void *device)
{
    int count = bus->count;
    if (count == CPUFW_MAX_REGIONS)
        return -ENOSPC;
    for (int i = 0; i < count; i++) {
        const struct cpufw_region *other = &bus->regions[i];
        if (other->space == space && base < other->base + other->length &&
            other->base < base + length)
            return -EEXIST;
    }
    bus->regions[count] = (struct cpufw_region){space, base, length, ops, device};
    /* Running vCPUs read the table: they may see the entry only when it is complete. */
    __atomic_store_n(&bus->count, count + 1, __ATOMIC_RELEASE);
    return count;
}

static int find_region(const struct cpufw_bus *bus, int space, uint64_t address, unsigned size)
{
    int count = __atomic_load_n(&bus->count, __ATOMIC_ACQUIRE);
    for (int i = 0; i < count; i++) {
        const struct cpufw_region *region = &bus->regions[i];
        uint64_t offset = address - region->base;
        if (region->space == space && offset < region->length && size <= region->length - offset)
            return i;
    }
    return -1;
}

/* Serves the items of one access; after a full device it goes on where it stopped. NOT_SERVED
 * leaves the items from `next_item` on to Python. */
static int serve(struct cpufw_vcpu *vcpu, int number, uint64_t address, int is_write,
                 unsigned size, uint32_t count, uint8_t *data)
{
    const struct cpufw_region *region = &vcpu->bus->regions[number];
    uint64_t offset = address - region->base;
    int seen = CPUFW_DEVICE_DONE;

    vcpu->retry = 0;
    while (vcpu->next_item < count) {
        uint8_t *item = data + (size_t)vcpu->next_item * size;
        seen |= is_write ? region->ops->write(region->device, offset, size, item)
                         : region->ops->read(region->device, offset, size, item);
        if (seen & CPUFW_DEVICE_PASS)
            return NOT_SERVED;
        if (seen & CPUFW_DEVICE_FULL) {
            /* Whoever called the vCPU out needs this access finished, as KVM does. */
            if (region->ops->overflow && __atomic_load_n(&vcpu->kicked, __ATOMIC_RELAXED)) {
                seen &= ~CPUFW_DEVICE_FULL;
                region->ops->overflow(region->device);
                continue;
            }
            vcpu->retry = 1;
            break;
        }
        vcpu->next_item++;
    }
    if (!vcpu->retry)
        vcpu->next_item = 0;
    if (vcpu->announce) {
        vcpu->announce = 0;
        seen |= CPUFW_DEVICE_READY;
    }
    if (!seen)
        return SERVED;
    vcpu->exit.code = number;
    return CPUFW_EXIT_OUTPUT_READY;
}

/* ---- exits ---- */

static int on_pio(struct cpufw_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct cpufw_exit *exit = &vcpu->exit;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    int is_write = run->io.direction == KVM_EXIT_IO_OUT;
    int region = find_region(vcpu->bus, CPUFW_SPACE_PIO, run->io.port, run->io.size);
    uint32_t count = run->io.count;

    if (region >= 0) {
        int served = serve(vcpu, region, run->io.port, is_write, run->io.size, count, data);
        if (served != NOT_SERVED)
            return served;
        count -= vcpu->next_item;
        data += (size_t)vcpu->next_item * run->io.size;
        vcpu->next_item = 0;
    }
    exit->is_write = is_write;
    exit->port = run->io.port;
    exit->size = run->io.size;
    exit->count = count;
    exit->data = data;
    if (is_write)
        exit->value = load(data, run->io.size);
    else if (count == 1)
        vcpu->answer = data;
    return KVM_EXIT_IO;
}

static int on_mmio(struct cpufw_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct cpufw_exit *exit = &vcpu->exit;
    uint64_t address = run->mmio.phys_addr;
    int region = find_region(vcpu->bus, CPUFW_SPACE_MMIO, address, run->mmio.len);

    if (region >= 0) {
        int served =
            serve(vcpu, region, address, run->mmio.is_write, run->mmio.len, 1, run->mmio.data);
        if (served != NOT_SERVED)
            return served;
    }
    exit->is_write = run->mmio.is_write;
    exit->address = address;
    exit->size = run->mmio.len;
    if (exit->is_write)
        exit->value = load(run->mmio.data, exit->size);
    else
        vcpu->answer = run->mmio.data;
    return KVM_EXIT_MMIO;
}

static void copy_words(struct cpufw_exit *exit, uint32_t count, const __u64 *words)
{
    exit->ndata = count < 16 ? count : 16;
    for (uint32_t i = 0; i < exit->ndata; i++)
        exit->words[i] = words[i];
}

static void on_internal_error(struct cpufw_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct cpufw_exit *exit = &vcpu->exit;

    exit->code = run->internal.suberror;
    copy_words(exit, run->internal.ndata, run->internal.data);
    exit->insn_size = 0;
#ifdef KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
    /* The flags word and the 16 bytes of size and instruction make three words of data. */
    if (exit->code == KVM_INTERNAL_ERROR_EMULATION && exit->ndata >= 3 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
        uint32_t size = run->emulation_failure.insn_size;
        exit->insn_size = size < sizeof exit->insn ? size : sizeof exit->insn;
        memcpy(exit->insn, run->emulation_failure.insn_bytes, exit->insn_size);
    }
#endif
}

static int on_exit_reason(struct cpufw_vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    struct cpufw_exit *exit = &vcpu->exit;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        return on_pio(vcpu);
    case KVM_EXIT_MMIO:
        return on_mmio(vcpu);
    case KVM_EXIT_INTERNAL_ERROR:
        on_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        exit->value = run->fail_entry.hardware_entry_failure_reason;
        exit->code = run->fail_entry.cpu;
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        exit->code = run->system_event.type;
        copy_words(exit, run->system_event.ndata, run->system_event.data);
        break;
    }
    return run->exit_reason;
}

/* ---- the loop ---- */

static int consume_interruption(struct cpufw_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->exit.kicked = vcpu->kicked;
    vcpu->kicked = 0;
    vcpu->run->immediate_exit = vcpu->hold_immediate_exit;
    pthread_mutex_unlock(&vcpu->lock);
    return CPUFW_EXIT_INTERRUPTED;
}

static int step(struct cpufw_vcpu *vcpu)
{
    if (vcpu->retry)
        return on_exit_reason(vcpu);
    if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
        return on_exit_reason(vcpu);
    if (errno == EINTR)
        return consume_interruption(vcpu);
    if (errno == EAGAIN) /* a waiting vCPU was woken, by INIT or SIPI for example */
        return SERVED;
    return -errno;
}

static int begin(struct cpufw_vcpu *vcpu)
{
    int error = 0;
    if (!kick_signal_unblocked) {
        unblock_kick_signal();
        kick_signal_unblocked = 1;
    }
    pthread_mutex_lock(&vcpu->lock);
    if (!vcpu->run) {
        error = -EBADF;
    } else if (vcpu->running) {
        error = -EBUSY;
    } else {
        vcpu->running = 1;
        vcpu->thread = pthread_self();
        kick_signal_seen = 0;
    }
    pthread_mutex_unlock(&vcpu->lock);
    return error;
}

static void end(struct cpufw_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    int signalled = vcpu->signalled;
    vcpu->running = 0;
    vcpu->signalled = 0;
    pthread_mutex_unlock(&vcpu->lock);
    /* A signal that is still on its way must not break the caller's next system call. */
    if (signalled && !kick_signal_seen) {
        unblock_kick_signal();
        while (!kick_signal_seen)
            sched_yield();
    }
}

int cpufw_vcpu_run(struct cpufw_vcpu *vcpu)
{
    int result = begin(vcpu);
    if (result < 0)
        return result;
    if (vcpu->answer) {
        store(vcpu->answer, vcpu->exit.size, vcpu->exit.value);
        vcpu->answer = NULL;
    }
    do
        result = step(vcpu);
    while (result == SERVED);
    end(vcpu);
    return result;
}

int cpufw_vcpu_kick(struct cpufw_vcpu *vcpu)
{
    int error = 0;
    pthread_mutex_lock(&vcpu->lock);
    /* After the first kick immediate_exit stays set until a run has returned interrupted. */
    if (vcpu->run && !vcpu->kicked) {
        vcpu->kicked = 1;
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        if (vcpu->running) {
            error = pthread_kill(vcpu->thread, KICK_SIGNAL);
            vcpu->signalled |= !error;
        }
    }
    pthread_mutex_unlock(&vcpu->lock);
    return -error;
}

void cpufw_vcpu_hold_immediate_exit(struct cpufw_vcpu *vcpu, int on)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->hold_immediate_exit = on;
    if (vcpu->run)
        vcpu->run->immediate_exit = on || vcpu->kicked;
    pthread_mutex_unlock(&vcpu->lock);
}

/* ---- life of a vCPU ---- */

struct cpufw_vcpu *cpufw_vcpu_open(int fd, size_t run_size, struct cpufw_bus *bus)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct cpufw_vcpu *vcpu = calloc(1, sizeof *vcpu);
    if (!vcpu)
        return NULL;
    vcpu->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (vcpu->run == MAP_FAILED) {
        free(vcpu);
        return NULL;
    }
    pthread_once(&once, install_kick_handler);
    vcpu->fd = fd;
    vcpu->run_size = run_size;
    vcpu->bus = bus;
    pthread_mutex_init(&vcpu->lock, NULL);
    return vcpu;
}

int cpufw_vcpu_close(struct cpufw_vcpu *vcpu)
{
    int error = 0;
    pthread_mutex_lock(&vcpu->lock);
    if (vcpu->running) {
        error = -EBUSY;
    } else if (vcpu->run) {
        munmap(vcpu->run, vcpu->run_size);
        close(vcpu->fd);
        vcpu->run = NULL;
        vcpu->answer = NULL;
        vcpu->fd = -1;
    }
    pthread_mutex_unlock(&vcpu->lock);
    return error;
}

void cpufw_vcpu_free(struct cpufw_vcpu *vcpu)
{
    cpufw_vcpu_close(vcpu);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu);
}

/* ---- plain ioctls ---- */

int cpufw_ioctl(int fd, unsigned long request, void *argument)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : result;
}

int cpufw_ioctl_value(int fd, unsigned long request, unsigned long argument)
{
    return cpufw_ioctl(fd, request, (void *)argument);
}
