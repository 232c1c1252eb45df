"""Each facility of the machine as its guest finds it: one guest a facility, one test a check."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from facility_guests import EMULATED_HOST, ORDINARY_HOST, Report, run_guest
from guest_compiler import checks_of, guests, image_of

from cpufw.framework import Framework

pytestmark = pytest.mark.kvm

ALL_FEATURES = "Haswell,+la57,+smap,+umip,+rdpid,+pdpe1gb,+tsc-adjust"
OPTIONS: dict[str, dict[str, Any]] = {
    "interrupts": {"smp": "2"},
    "kvmclock": {"smp": "2"},
    "smp": {"smp": "4"},
    "tsc": {"smp": "4"},
    "x2apic": {"smp": "2"},
}
VARIANTS = {name: [(name, "on"), (name, "split")] for name in ("interrupts", "timers", "x2apic")}
"""Guests that run with either kind of interrupt controllers."""

# Guests that other tests run, with what they need.
ELSEWHERE = {"fuzz", "hotplug", "hyperv", "inflight", "multiboot", "virtio"}

# What a back end does not do, and its guest is not asked.
WITHOUT_VMX_AND_SVM = {
    "interrupts": {
        "vector_is_in_service_while_it_is_handled": "interrupts are ended when delivered",
        "level_of_a_line_waits_for_its_end": "interrupts are ended when delivered",
        "level_of_a_line_left_up_comes_again": "interrupts are ended when delivered",
        "pending_interrupt_comes_as_soon_as_it_may": "one is looked for every 1,024 instructions",
    },
    "exceptions": {"data_breakpoint_of_a_debug_register": "data breakpoints never hit"},
    "msrs": {
        "page_attributes_have_reserved_types": "the PAT takes any value",
        "fsgsbase_is_off_at_first": "rdfsbase does not look at CR4",
    },
    "rings": {
        "interrupt_gate": "int n in ring 3 is an undefined opcode",
        "gate_that_is_not_for_it": "int n in ring 3 is an undefined opcode",
        "time_stamp_disabled": "CR4.TSD does nothing in ring 3",
    },
    "tsc": {
        "adjusting_it": "rdtsc shows the host's time-stamp counter",
        "setting_it": "rdtsc shows the host's time-stamp counter",
    },
}
ON_QEMU_TCG = {
    "rings": {"gate_that_is_not_for_it": "the error code counts a gate as sixteen"},
    "msrs": {"addresses_are_canonical": "wrmsr takes addresses that are not canonical"},
    "xsave": {
        "saved_and_restored": "xsetbv does not reach KVM",
        "avx": "xsetbv does not reach KVM",
    },
}
LEFT_OUT = (ON_QEMU_TCG if EMULATED_HOST else {}) if ORDINARY_HOST else WITHOUT_VMX_AND_SVM
HOST_KIND = "on QEMU's TCG" if ORDINARY_HOST else "without VMX and SVM"


def every_check() -> Iterator[Any]:
    for guest in guests():
        if guest in ELSEWHERE:
            continue
        for name, irqchip in VARIANTS.get(guest, [(guest, None)]):
            for check in checks_of(guest):
                why = LEFT_OUT.get(guest, {}).get(check)
                marks = [pytest.mark.skip(reason=f"{HOST_KIND} {why}")] if why else []
                label = "-".join(filter(None, (name, irqchip, check)))
                yield pytest.param(guest, irqchip, check, id=label, marks=marks)


@cache
def report_of(framework: Framework, guest: str, irqchip: str | None) -> Report:
    image = image_of(guest, " ".join(LEFT_OUT.get(guest, {})))
    options = {"kernel_irqchip": irqchip, **OPTIONS.get(guest, {})}
    return run_guest(framework, image, cpu=f"{ALL_FEATURES},check=off", **options)


@pytest.mark.parametrize(("guest", "irqchip", "check"), list(every_check()))
def test_facility(framework: Framework, guest: str, irqchip: str | None, check: str) -> None:
    report_of(framework, guest, irqchip).require(check)
