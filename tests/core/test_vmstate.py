"""Declarative state: what is saved comes back, and anything else is refused, changing nothing."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any, ClassVar

import pytest

from cpufw.core.vmstate import (
    Subsection,
    VMState,
    array,
    blob,
    boolean,
    i64,
    member,
    nested,
    nested_list,
    text,
    u8,
    u16,
    u32,
)
from cpufw.errors import StateError


class Mode(enum.Enum):
    OFF = "off"
    ON = "on"


class Timer:
    vmstate: ClassVar[VMState] = VMState("timer", 1, u16("count"))

    def __init__(self, count: int = 0) -> None:
        self.count = count


class Device:
    """One of each kind of field."""

    vmstate: ClassVar[VMState] = VMState(
        "device",
        2,
        u8("control"),
        i64("offset"),
        boolean("running", attr="_running"),
        text("label"),
        member(Mode, "mode"),
        blob("ram", 4),
        blob("name", most=3),
        array(u8, "registers", 3),
        array(u32, "queue", most=2),
        nested("timer", Timer.vmstate),
        nested_list("timers", Timer.vmstate),
        u16("ticks", attr="timer.count"),
        u16("divider", since=2, default=7),
        Subsection("device/alarm", u32("alarm", default=0), array(u8, "days", default=[])),
        pre_save="latch",
        post_load="settle",
    )

    def __init__(self) -> None:
        self.control, self.offset, self._running, self.label = 0, 0, False, ""
        self.ram, self.name, self.mode = bytearray(4), b"", Mode.OFF
        self.registers, self.queue = [0, 0, 0], deque[int]()
        self.timer, self.timers = Timer(), [Timer(), Timer()]
        self.divider, self.alarm, self.days = 9, 5, [1]
        self.latched = self.settled = 0

    def latch(self) -> None:
        self.latched += 1

    def settle(self) -> None:
        self.settled += 1


def busy() -> Device:
    device = Device()
    device.control, device.offset, device._running, device.label = 0xFF, -1, True, "cpü"
    device.ram[:], device.name = b"\x01\x02\x03\x04", b"abc"
    device.registers[:], device.divider, device.mode = [1, 2, 3], 100, Mode.ON
    device.queue.extend([4, 5])
    device.timer.count, device.timers[1].count = 11, 12
    device.alarm, device.days = 77, [2, 3]
    return device


def change(state: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**state, "fields": {**state["fields"], **fields}}


def test_everything_comes_back_in_the_same_containers() -> None:
    state = Device.vmstate.save(busy())
    device = Device()
    ram, queue, timer = device.ram, device.queue, device.timer
    Device.vmstate.load(device, state)
    assert Device.vmstate.save(device) == state
    assert device.ram is ram
    assert bytes(ram) == b"\x01\x02\x03\x04"
    assert device.queue is queue
    assert list(queue) == [4, 5]
    assert device.timer is timer
    assert (timer.count, device.timers[1].count, device.alarm) == (11, 12, 77)
    assert (device.days, device.mode) == ([2, 3], Mode.ON)
    assert (device.latched, device.settled) == (1, 1)


def test_a_saved_state_does_not_change_with_its_object() -> None:
    device = busy()
    state = Device.vmstate.save(device)
    device.ram[0] = 99
    device.registers[0] = 99
    assert state["fields"]["ram"][0] == 1
    assert state["fields"]["registers"][0] == 1


def test_older_states_take_defaults() -> None:
    state = Device.vmstate.save(busy())
    del state["fields"]["divider"], state["subsections"]
    state["version"] = 1
    device = busy()
    Device.vmstate.load(device, state)
    assert (device.divider, device.alarm, device.days) == (7, 0, [])
    device.days.append(1)
    Device.vmstate.load(device, state)
    assert device.days == []


def test_a_subsection_is_saved_only_where_it_differs_from_its_defaults() -> None:
    device = busy()
    device.alarm, device.days = 0, []
    assert "subsections" not in Device.vmstate.save(device)
    device.days = [1]
    assert list(Device.vmstate.save(device)["subsections"]) == ["device/alarm"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"version": 3}, "state of device has version 3, this cpufw reads up to 2: load it with"),
        ({"version": 0}, "not a version, fields and subsections"),
        ({"extra": 1}, "not a version, fields and subsections"),
        ({"subsections": {"device/clock": {}}}, "subsection 'device/clock', which this cpufw"),
        ({"version": 1}, "field 'divider', which this cpufw does not know"),
    ],
)
def test_states_of_another_shape_are_refused(wrong: dict[str, Any], message: str) -> None:
    refused({**Device.vmstate.save(busy()), **wrong}, message)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"control": 256}, r"device: control is 0x100, expected u8: 0 to 0xff"),
        ({"control": -1}, "control is -0x1, expected u8"),
        ({"control": True}, "control is True, expected u8"),
        ({"running": 1}, "running is 1, expected true or false"),
        ({"mode": "half"}, "mode is 'half', expected one of off, on"),
        ({"label": b""}, "label is of type bytes, expected text"),
        ({"ram": b"12345"}, "ram has 5 bytes, expected 4"),
        ({"ram": "1234"}, "ram is '1234', expected bytes"),
        ({"name": b"abcd"}, "name has 4 bytes, expected 3 at most"),
        ({"registers": [1, 2]}, "registers has 2 items, expected 3"),
        ({"registers": [1, 2, 300]}, r"registers\[2\] is 0x12c"),
        ({"registers": 1}, "registers is 1, expected a list"),
        ({"queue": [1, 2, 3]}, "queue has 3 items, expected 2 at most"),
        ({"timer": {"version": 1, "fields": {}}}, "state of timer lacks its field count"),
        ({"timers": []}, "timers has 0 items, expected 2"),
        ({"speed": 1}, "field 'speed', which this cpufw does not know"),
    ],
)
def test_bad_fields_are_refused(wrong: dict[str, Any], message: str) -> None:
    refused(change(Device.vmstate.save(busy()), **wrong), message)


def refused(state: dict[str, Any], message: str) -> None:
    device = Device()
    before = Device.vmstate.save(device)
    with pytest.raises(StateError, match=message):
        Device.vmstate.load(device, state)
    assert Device.vmstate.save(device) == before
    assert device.settled == 0


def test_a_value_out_of_range_is_not_saved() -> None:
    device = busy()
    device.control = 300
    with pytest.raises(StateError, match="control is 0x12c"):
        Device.vmstate.save(device)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: VMState("x", 2, u8("late", since=2)),
        lambda: VMState("x", 1, u8("late", since=2, default=0)),
        lambda: VMState("x", 1, u8("twice"), u16("twice")),
        lambda: Subsection("x/y", u8("needed")),
        lambda: Subsection("x/y", nested("inner", Timer.vmstate)),
    ],
)
def test_declarations_that_cannot_work_are_refused_at_once(declare: Any) -> None:
    with pytest.raises(ValueError, match=r"field|subsection|state x"):
        declare()
