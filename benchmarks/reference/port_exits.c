/* port_exits RAM_BYTES IMAGE CPUID: a loop of KVM_RUN that keeps each byte a guest writes to a port
 * for ever. Each line of input holds a number of exits and is answered with the nanoseconds. */
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

static volatile uint8_t kept[65536];

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    struct file image = read_file(argv[2]);
    struct cpuid cpuid = read_cpuid(argv[3]);
    int kvm = open_kvm();
    struct vm vm = create_vm(kvm, strtoul(argv[1], NULL, 0));
    struct vcpu vcpu = create_vcpu(kvm, &vm, 0, &cpuid);
    enter_real_mode(&vm, &vcpu, &image);

    for (;;) {
        long exits = next_request();
        int64_t start = monotonic_ns();
        for (long i = 0; i < exits; i++) {
            if (ioctl(vcpu.fd, KVM_RUN, 0) < 0 || vcpu.run->exit_reason != KVM_EXIT_IO)
                fail("KVM_RUN did not end at a port access");
            kept[i % sizeof kept] = *((uint8_t *)vcpu.run + vcpu.run->io.data_offset);
        }
        printf("%lld\n", (long long)(monotonic_ns() - start));
    }
}
