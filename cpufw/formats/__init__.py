"""CPU models in the words of others: libvirt, QEMU, KubeVirt, Firecracker and more, in and out."""
