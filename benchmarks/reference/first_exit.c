/* first_exit RAM_BYTES IMAGE CPUID: from nothing but an open /dev/kvm to a guest's first port
 * access. Each line of input is answered with the nanoseconds that took. */
#include "vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    size_t ram_size = strtoul(argv[1], NULL, 0);
    struct file image = read_file(argv[2]);
    struct cpuid cpuid = read_cpuid(argv[3]);
    int kvm = open_kvm();

    for (;;) {
        next_request();
        int64_t start = monotonic_ns();
        struct vm vm = create_vm(kvm, ram_size);
        struct vcpu vcpu = create_vcpu(kvm, &vm, 0, &cpuid);
        enter_real_mode(&vm, &vcpu, &image);
        control(vcpu.fd, "KVM_RUN", KVM_RUN, NULL);
        int64_t end = monotonic_ns();
        if (vcpu.run->exit_reason != KVM_EXIT_IO)
            return 1;
        destroy_vcpu(kvm, &vcpu);
        destroy_vm(&vm);
        printf("%lld\n", (long long)(end - start));
    }
}
