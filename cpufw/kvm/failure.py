"""From errno to a `KvmError` that says what failed, on what, and what to do about it."""

from __future__ import annotations

import errno
import os

from cpufw.errors import KvmError

# Only where the errno of this ioctl has one likely cause. ("", n) is for any ioctl.
_CAUSES = {
    ("KVM_GET_API_VERSION", errno.ENOTTY): "this is not a KVM device",
    ("KVM_CREATE_VM", errno.EBUSY): (
        "another hypervisor holds the processor's virtualisation extensions: unload it"
    ),
    ("KVM_CREATE_VCPU", errno.EEXIST): (
        "an id can be created once in a VM's life, even if its handle was closed since: "
        "keep the vCPU and use it again"
    ),
    ("KVM_CREATE_VCPU", errno.EINVAL): (
        "the id is not below KVM_CAP_MAX_VCPU_ID, or KVM_CAP_MAX_VCPUS of them exist"
    ),
    ("KVM_CREATE_IRQCHIP", errno.EEXIST): "the VM has an interrupt controller already",
    ("KVM_CREATE_IRQCHIP", errno.EINVAL): "it must come before the first vCPU",
    ("KVM_CREATE_PIT2", errno.ENOENT): "create the in-kernel interrupt controller first",
    ("KVM_CREATE_PIT2", errno.EEXIST): "the VM has a PIT already",
    ("KVM_IRQ_LINE", errno.ENXIO): "create the in-kernel interrupt controller first",
    ("KVM_SIGNAL_MSI", errno.EINVAL): "create the in-kernel interrupt controller first",
    ("KVM_IRQFD", errno.EBUSY): "this file descriptor is bound to an interrupt already",
    ("KVM_IOEVENTFD", errno.EEXIST): "another file descriptor is bound to this address and value",
    ("KVM_SET_USER_MEMORY_REGION", errno.EEXIST): (
        "the guest-physical range overlaps another slot's"
    ),
    ("KVM_SET_USER_MEMORY_REGION", errno.EINVAL): (
        "address and size must be multiples of the page size, and a live slot can only be "
        "moved or removed, not resized"
    ),
    ("KVM_SET_CPUID2", errno.EINVAL): (
        "KVM refuses these entries, or the vCPU has already run and they differ from its own"
    ),
    ("KVM_SET_CPUID2", errno.E2BIG): "there are more entries than KVM takes",
    ("KVM_GET_LAPIC", errno.EINVAL): "the VM has no in-kernel interrupt controller",
    ("KVM_SET_LAPIC", errno.EINVAL): (
        "the VM has no in-kernel interrupt controller, or the registers name another APIC id"
    ),
    ("KVM_INTERRUPT", errno.ENXIO): "the in-kernel interrupt controller delivers interrupts",
    ("KVM_KVMCLOCK_CTRL", errno.EINVAL): "the guest has not set up its kvmclock",
    ("KVM_RUN", errno.EFAULT): "the guest touched memory that its slot no longer maps",
    ("KVM_RUN", errno.ENOEXEC): "the vCPU is not initialised, or its state makes no sense",
    ("", errno.ENOTTY): "this kernel does not have the ioctl",
    ("", errno.ENOMEM): "the host is out of memory",
    ("", errno.EMFILE): "too many open files in this process: raise 'ulimit -n'",
    ("", errno.EPERM): "not permitted for this process",
    ("", errno.EIO): "the VM is dead or belongs to another process",
}


def kvm_error(ioctl: str, error: int, subject: str) -> KvmError:
    """The error for `ioctl` having failed on `subject` with the errno `error`."""
    name = errno.errorcode.get(error, str(error))
    message = f"{ioctl} on {subject} failed: {name} ({os.strerror(error)})"
    cause = _CAUSES.get((ioctl, error)) or _CAUSES.get(("", error))
    return KvmError(f"{message}: {cause}" if cause else message, ioctl, error)


def open_error(path: str, error: int) -> KvmError:
    """The error for the KVM device at `path` not opening."""
    match error:
        case errno.ENOENT:
            message = (
                f"{path} does not exist: load kvm_intel or kvm_amd, or turn on virtualisation "
                "in the firmware (inside a VM: nested virtualisation)"
            )
        case errno.EACCES | errno.EPERM:
            message = f"no permission to open {path}: add yourself to the group kvm"
        case errno.ENODEV | errno.ENXIO:
            message = f"{path} has no driver behind it: load kvm_intel or kvm_amd"
        case _:
            message = f"cannot open {path}: {os.strerror(error)}"
    return KvmError(message, "open", error)
