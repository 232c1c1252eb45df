"""Getting a running guest back."""

from __future__ import annotations

import ctypes
import signal
import threading
import time

import pytest
from kvm_guests import CODE, in_thread, real_mode_guest

from cpufw.kvm import Interrupted, IoExit

pytestmark = pytest.mark.kvm

SPIN = b"\xeb\xfe"  # jmp $
OUT_FOREVER = b"\xe6\x10\xeb\xfc"  # out 0x10, al; jmp back
HLT = b"\xf4"


def test_kick_stops_a_spinning_guest() -> None:
    with real_mode_guest(SPIN) as guest:
        result = in_thread(guest.vcpu.run)
        time.sleep(0.05)
        guest.vcpu.kick()
        exit = result(1)
        assert isinstance(exit, Interrupted)
        assert exit.kicked


def test_kick_before_run_returns_at_once_and_only_once() -> None:
    with real_mode_guest(OUT_FOREVER) as guest:
        guest.vcpu.kick()
        guest.vcpu.kick()
        assert isinstance(guest.vcpu.run(), Interrupted)
        assert guest.vcpu.get_regs().rip == CODE
        assert isinstance(guest.vcpu.run(), IoExit)


def test_kick_finishes_the_access_under_way() -> None:
    with real_mode_guest(b"\xe4\x10" + SPIN) as guest:  # in al, 0x10
        io = guest.vcpu.run()
        assert isinstance(io, IoExit)
        io.value = 0x42
        guest.vcpu.kick()
        assert isinstance(guest.vcpu.run(), Interrupted)
        regs = guest.vcpu.get_regs()
        assert (regs.rax, regs.rip) == (0x42, CODE + 2)


def test_a_thousand_kicks_are_a_thousand_returns() -> None:
    kicks = 1000
    with real_mode_guest(SPIN) as guest:
        returned = threading.Semaphore(0)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                exit = guest.vcpu.run()
                assert isinstance(exit, Interrupted)
                assert exit.kicked
                returned.release()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        for number in range(kicks):
            if number == kicks - 1:
                stop.set()
            guest.vcpu.kick()
            assert returned.acquire(timeout=5), f"kick {number} was lost"
        thread.join(5)
        assert not thread.is_alive()
        assert not returned.acquire(blocking=False)


def test_kick_never_breaks_the_callers_own_system_calls() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with real_mode_guest(OUT_FOREVER) as guest:
        broken: list[int] = []
        kicked = 0
        done = threading.Event()

        def serve() -> None:
            nonlocal kicked
            while not done.is_set():
                if isinstance(guest.vcpu.run(), Interrupted):
                    kicked += 1
                if libc.poll(None, 0, 1):  # unlike Python's own, not repeated after EINTR
                    broken.append(ctypes.get_errno())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            guest.vcpu.kick()
            time.sleep(0.0003)
        done.set()
        guest.vcpu.kick()
        thread.join(5)
        assert not thread.is_alive()
    assert kicked > 20
    assert broken == []


def test_halted_guest_with_irqchip_waits_in_the_kernel_until_kicked() -> None:
    with real_mode_guest(HLT, irqchip=True) as guest:
        result = in_thread(guest.vcpu.run)
        with pytest.raises(AssertionError, match="no exit within"):
            result(0.2)
        guest.vcpu.kick()
        assert isinstance(result(1), Interrupted)


def test_another_signal_interrupts_without_being_a_kick() -> None:
    ticks: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _frame: ticks.append(number))
    try:
        with real_mode_guest(SPIN) as guest:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            exit = guest.vcpu.run()
            assert isinstance(exit, Interrupted)
            assert not exit.kicked
            assert ticks == [signal.SIGALRM]
    finally:
        signal.signal(signal.SIGALRM, previous)


def test_immediate_exit_holds_through_runs_and_kicks() -> None:
    with real_mode_guest(OUT_FOREVER) as guest:
        guest.vcpu.immediate_exit = True
        guest.vcpu.kick()
        for kicked in (True, False, False):
            exit = guest.vcpu.run()
            assert isinstance(exit, Interrupted)
            assert exit.kicked == kicked
        guest.vcpu.immediate_exit = False
        assert isinstance(guest.vcpu.run(), IoExit)
