"""x86's own exits."""

from __future__ import annotations

from cpufw.kvm import VCPU, Exit

from .native import lib


class DebugExit(Exit):
    """A single step or breakpoint of `X86VCPU.set_guest_debug`.

    `exception` is 1 (#DB) or 3 (#BP), `pc` the guest's linear address, `dr6` and `dr7` the
    debug registers (Intel SDM vol. 3B, 18.2).
    """

    __slots__ = ("dr6", "dr7", "exception", "pc")
    __match_args__ = ("exception", "pc", "dr6", "dr7")

    def __init__(self, exception: int, pc: int, dr6: int, dr7: int) -> None:
        self.exception, self.pc, self.dr6, self.dr7 = exception, pc, dr6, dr7


class MsrExit(Exit):
    """An RDMSR or WRMSR handed to user space (KVM_CAP_X86_USER_SPACE_MSR).

    Answer a read by setting `value`. `refuse` begins as True: the guest gets #GP unless the
    handler sets it to False. `reason` is one of KVM_MSR_EXIT_REASON_*.
    """

    __slots__ = ("index", "is_write", "reason", "refuse", "value")
    __match_args__ = ("index", "is_write", "value", "reason")

    def __init__(self, index: int, is_write: bool, value: int, reason: int) -> None:
        self.index = index
        self.is_write = is_write
        self.value = value
        self.reason = reason
        self.refuse = True

    def _answer(self, vcpu: VCPU) -> None:
        lib.cpufw_answer_msr(vcpu.run_page, self.value, self.refuse)


class HypervExit(Exit):
    """The guest did something with Hyper-V that KVM leaves to devices; here there are none.

    A hypercall that posts a message or signals an event fails, any other thing is just known.
    """

    __slots__ = ()

    def _answer(self, vcpu: VCPU) -> None:
        lib.cpufw_refuse_hypercall(vcpu.run_page)


class IoapicEoiExit(Exit):
    """The guest acknowledged `vector`, which a user-space IOAPIC routes (split irqchip)."""

    __slots__ = ("vector",)
    __match_args__ = ("vector",)

    def __init__(self, vector: int) -> None:
        self.vector = vector
