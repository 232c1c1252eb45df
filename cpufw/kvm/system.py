"""/dev/kvm itself: what this host's KVM can do, and the way to a VM."""

from __future__ import annotations

import errno
import os

from cpufw.errors import KvmError

from .failure import open_error
from .handle import Handle, constant
from .native import lib
from .vm import VM


class KVM(Handle):
    """The KVM device. An architecture's own class overrides `vm_class`."""

    vm_class: type[VM] = VM

    def __init__(self, path: str = "/dev/kvm") -> None:
        """Open the device; KvmError says why it does not open, or is not KVM."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise open_error(path, error.errno or errno.EIO) from error
        super().__init__(fd, path)
        try:
            version = self.api_version
            if version != lib.KVM_API_VERSION:
                raise KvmError(
                    f"{path} speaks version {version} of the KVM API, "
                    f"cpufw speaks {lib.KVM_API_VERSION}",
                    "KVM_GET_API_VERSION",
                )
            self.vcpu_mmap_size = self.ioctl("KVM_GET_VCPU_MMAP_SIZE", lib.KVM_GET_VCPU_MMAP_SIZE)
            """Bytes of a vCPU's shared run area (KVM_GET_VCPU_MMAP_SIZE)."""
        except KvmError:
            self.close()
            raise

    @property
    def api_version(self) -> int:
        """12 since Linux 2.6.22 (KVM_GET_API_VERSION)."""
        return self.ioctl("KVM_GET_API_VERSION", lib.KVM_GET_API_VERSION)

    def check_extension(self, capability: int | str) -> int:
        """What KVM has of a capability, by number or KVM_CAP_* name; 0: not there.

        (KVM_CHECK_EXTENSION)
        """
        return self.ioctl("KVM_CHECK_EXTENSION", lib.KVM_CHECK_EXTENSION, constant(capability))

    def capabilities(self) -> dict[str, int]:
        """`check_extension` of every KVM_CAP_* that the kernel headers name."""
        names = (name for name in dir(lib) if name.startswith("KVM_CAP_"))
        return {name: self.check_extension(name) for name in names}

    def create_vm(self) -> VM:
        """An empty VM of the default type (KVM_CREATE_VM)."""
        return self.vm_class(self, self.ioctl("KVM_CREATE_VM", lib.KVM_CREATE_VM))
