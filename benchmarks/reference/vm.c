#define _GNU_SOURCE
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { REAL_MODE_IMAGE = 0x7c00, PROTECTED_MODE_IMAGE = 0x100000, GDT = 0x90000, STACK = 0x90000 };

void fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

int control(int fd, const char *name, unsigned long request, void *argument)
{
    int result = ioctl(fd, request, argument);
    if (result < 0)
        fail(name);
    return result;
}

int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

long next_request(void)
{
    char line[32];
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        exit(0);
    return atol(line);
}

struct file read_file(const char *path)
{
    static struct file file;
    FILE *stream = fopen(path, "rb");
    if (!stream)
        fail(path);
    file.size = fread(file.bytes, 1, sizeof file.bytes, stream);
    fclose(stream);
    return file;
}

struct cpuid read_cpuid(const char *path)
{
    struct file file = read_file(path);
    struct cpuid cpuid = {.nent = file.size / sizeof cpuid.entries[0]};
    if (cpuid.nent > MOST_CPUID_ENTRIES)
        cpuid.nent = MOST_CPUID_ENTRIES;
    memcpy(cpuid.entries, file.bytes, cpuid.nent * sizeof cpuid.entries[0]);
    return cpuid;
}

struct cpuid cpuid_for(const struct cpuid *common, uint32_t apic_id)
{
    struct cpuid own = *common;
    for (uint32_t i = 0; i < own.nent; i++) {
        struct kvm_cpuid_entry2 *entry = &own.entries[i];
        if (entry->function == 1)
            entry->ebx = (entry->ebx & 0x00ffffff) | apic_id << 24;
        if (entry->function == 0xb || entry->function == 0x1f)
            entry->edx = apic_id;
    }
    return own;
}

int open_kvm(void)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0)
        fail("/dev/kvm");
    return kvm;
}

struct vm create_vm(int kvm, size_t ram_size)
{
    struct vm vm = {.ram_size = ram_size};
    uint64_t identity_map = 0xfffbc000;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

    vm.fd = control(kvm, "KVM_CREATE_VM", KVM_CREATE_VM, NULL);
    control(vm.fd, "KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
    control(vm.fd, "KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR, (void *)0xfffbd000);
    control(vm.fd, "KVM_CREATE_IRQCHIP", KVM_CREATE_IRQCHIP, NULL);
    control(vm.fd, "KVM_CREATE_PIT2", KVM_CREATE_PIT2, &pit);

    vm.ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (vm.ram == MAP_FAILED)
        fail("mmap of the guest's RAM");
    struct kvm_userspace_memory_region region = {
        .memory_size = ram_size,
        .userspace_addr = (uintptr_t)vm.ram,
    };
    control(vm.fd, "KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, &region);
    return vm;
}

void destroy_vm(struct vm *vm)
{
    close(vm->fd);
    munmap(vm->ram, vm->ram_size);
}

static size_t run_page_size(int kvm)
{
    return control(kvm, "KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE, NULL);
}

struct vcpu create_vcpu(int kvm, const struct vm *vm, uint32_t id, struct cpuid *cpuid)
{
    struct vcpu vcpu;
    struct cpuid granted = {.nent = MOST_CPUID_ENTRIES};

    vcpu.fd = control(vm->fd, "KVM_CREATE_VCPU", KVM_CREATE_VCPU, (void *)(uintptr_t)id);
    vcpu.run = mmap(NULL, run_page_size(kvm), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
    if (vcpu.run == MAP_FAILED)
        fail("mmap of the run page");
    control(vcpu.fd, "KVM_GET_LAPIC", KVM_GET_LAPIC, &vcpu.lapic);
    control(vcpu.fd, "KVM_SET_LAPIC", KVM_SET_LAPIC, &vcpu.lapic);
    control(vcpu.fd, "KVM_SET_CPUID2", KVM_SET_CPUID2, cpuid);
    control(vcpu.fd, "KVM_GET_CPUID2", KVM_GET_CPUID2, &granted);
    return vcpu;
}

void destroy_vcpu(int kvm, struct vcpu *vcpu)
{
    munmap(vcpu->run, run_page_size(kvm));
    close(vcpu->fd);
}

static void enter(const struct vcpu *vcpu, struct kvm_sregs *sregs, uint64_t rip)
{
    struct kvm_regs regs = {.rip = rip, .rsp = STACK, .rflags = 2};
    control(vcpu->fd, "KVM_SET_SREGS", KVM_SET_SREGS, sregs);
    control(vcpu->fd, "KVM_SET_REGS", KVM_SET_REGS, &regs);
}

void enter_real_mode(const struct vm *vm, const struct vcpu *vcpu, const struct file *image)
{
    struct kvm_sregs sregs;
    memcpy(vm->ram + REAL_MODE_IMAGE, image->bytes, image->size);
    control(vcpu->fd, "KVM_GET_SREGS", KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    enter(vcpu, &sregs, REAL_MODE_IMAGE);
}

void enter_protected_mode(const struct vm *vm, const struct vcpu *vcpu, const struct file *image)
{
    static const uint64_t gdt[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff};
    struct kvm_segment flat = {.limit = 0xffffffff, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_sregs sregs;

    memcpy(vm->ram + PROTECTED_MODE_IMAGE, image->bytes, image->size);
    memcpy(vm->ram + GDT, gdt, sizeof gdt);
    control(vcpu->fd, "KVM_GET_SREGS", KVM_GET_SREGS, &sregs);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = sizeof gdt - 1;
    sregs.cr0 = 1 << 4 | 1; /* ET, PE: Intel SDM vol. 3A, 2.5 */
    sregs.cs = flat;
    sregs.cs.selector = 0x08;
    sregs.cs.type = 0xb; /* execute, read, accessed: Intel SDM vol. 3A, 3.4.5.1 */
    sregs.ds = flat;
    sregs.ds.selector = 0x10;
    sregs.ds.type = 0x3; /* read, write, accessed */
    sregs.es = sregs.fs = sregs.gs = sregs.ss = sregs.ds;
    enter(vcpu, &sregs, PROTECTED_MODE_IMAGE);
}
