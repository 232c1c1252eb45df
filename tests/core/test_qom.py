"""The object tree: properties of a type, children, links, canonical paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpufw.core.qom import Object, Property
from cpufw.errors import NotFoundError, PropertyError


class Lamp(Object):
    type_name = "lamp"
    specs: Mapping[str, Property] = {
        "lit": Property("lit", "bool", default=False),
        "colour": Property(
            "colour", "string", default="white", check=lambda v: None if v else "it is empty"
        ),
        "watts": Property("watts", "int", default=10, low=1, high=100),
        "serial-number": Property("serial-number", "uint32", default=0),
        "hours": Property("hours", "int", default=0, low=0),
        "maker": Property("maker", "string", default="us", writable=False),
    }

    def property_specs(self) -> Mapping[str, Property]:
        return self.specs


@pytest.fixture
def house() -> Object:
    root, house, room = Object(), Object(), Object()
    root.add_child("house", house)
    house.add_child("room[0]", room)
    room.add_child("lamp", Lamp())
    return house


def lamp_of(house: Object) -> Object:
    return house.resolve("room[0]/lamp")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("lit", True, True),
        ("lit", "on", True),
        ("lit", "off", False),
        ("lit", "yes", True),
        ("lit", "false", False),
        ("watts", 100, 100),
        ("watts", "0x10", 16),
        ("serial_number", "4294967295", 2**32 - 1),
        ("colour", "red", "red"),
    ],
)
def test_a_value_is_converted_to_the_property_s_type(name: str, value: Any, expected: Any) -> None:
    lamp = Lamp()
    lamp.set(name, value)
    assert lamp.get(name) == expected
    assert type(lamp.get(name)) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("lit", "maybe", "lamp.lit=maybe is not valid, expected on or off"),
        ("lit", 1, "expected on or off"),
        ("lit", [], "expected on or off"),
        ("lit", None, "expected on or off"),
        ("watts", "many", "lamp.watts=many is not valid, expected a whole number"),
        ("watts", 3.5, "expected a whole number"),
        ("watts", True, "expected a whole number"),
        ("watts", "9" * 5000, "expected a whole number"),
        ("watts", 0, "lamp.watts=0 is out of range, expected 1 to 100"),
        ("watts", 101, "expected 1 to 100"),
        ("hours", -1, "lamp.hours=-1 is out of range, expected at least 0"),
        ("serial-number", -1, "expected 0 to 4294967295"),
        ("serial-number", 2**32, "expected 0 to 4294967295"),
        ("colour", 5, "lamp.colour=5 is not valid, expected text"),
        ("colour", "", "lamp.colour= is not valid: it is empty"),
        ("maker", "them", "lamp.maker cannot be set"),
        ("type", "torch", "lamp.type cannot be set"),
        ("wats", 5, "property of lamp 'wats' is not known; did you mean watts?"),
    ],
)
def test_a_wrong_value_is_refused_and_changes_nothing(name: str, value: Any, says: str) -> None:
    lamp = Lamp()
    before = {name: lamp.get(name) for name in lamp.list_properties()}
    with pytest.raises(PropertyError) as caught:
        lamp.set(name, value)
    assert says in str(caught.value)
    assert {name: lamp.get(name) for name in lamp.list_properties()} == before


@given(st.integers() | st.text() | st.booleans() | st.floats() | st.none() | st.lists(st.none()))
def test_whatever_is_set_is_refused_or_read_back_in_range(value: Any) -> None:
    lamp = Lamp()
    for name in ("watts", "serial-number", "lit"):
        try:
            lamp.set(name, value)
        except PropertyError:
            assert lamp.get(name) == Lamp.specs[name].default
        else:
            low, high = Lamp.specs[name].bounds()
            assert lamp.get(name) in (True, False) or low <= lamp.get(name) <= high


def test_paths_are_canonical(house: Object) -> None:
    assert lamp_of(house).path == "/house/room[0]/lamp"
    assert house.resolve("/").path == "/"
    assert lamp_of(house).resolve("/house/room[0]/lamp") is lamp_of(house)


def test_every_listed_path_resolves_to_its_object(house: Object) -> None:
    def walk(node: Object) -> None:
        assert node.resolve(node.path) is node
        for name, child in node.children():
            assert node.list_properties()[name] == f"child<{child.type_name}>"
            assert node.get(name) == child.path
            walk(child)

    walk(house)


def test_a_link_shows_its_target_and_can_be_followed(house: Object) -> None:
    house.add_link("favourite", "lamp")
    assert house.get("favourite") == ""
    assert house.list_properties()["favourite"] == "link<lamp>"
    house.set_link("favourite", lamp_of(house))
    assert house.get("favourite") == "/house/room[0]/lamp"
    assert house.resolve("favourite") is lamp_of(house)
    house.set_link("favourite", None)
    with pytest.raises(NotFoundError, match="/house has no 'favourite'"):
        house.resolve("favourite")


def test_a_path_that_leads_nowhere_says_where_it_ends(house: Object) -> None:
    with pytest.raises(NotFoundError, match=r"'/house/room\[1\]/lamp' is not known; /house has no"):
        house.resolve("/house/room[1]/lamp")


def test_a_name_is_given_once(house: Object) -> None:
    room = house.resolve("room[0]")
    with pytest.raises(PropertyError, match="already has a child 'lamp'"):
        room.add_child("lamp", Lamp())
    with pytest.raises(PropertyError, match="already has a property 'lamp'"):
        room.add_link("lamp", "lamp")
    with pytest.raises(PropertyError, match="already has a parent"):
        house.add_child("lamp", lamp_of(house))
    assert house.child("lamp") is None
    with pytest.raises(PropertyError, match=r"object\.lamp cannot be set"):
        room.set("lamp", "x")


def test_an_object_taken_out_is_gone_and_can_be_put_elsewhere(house: Object) -> None:
    lamp = lamp_of(house)
    lamp.unparent()
    assert lamp.path == "/"
    assert list(house.resolve("room[0]").children()) == []
    house.add_child("lamp", lamp)
    assert lamp.path == "/house/lamp"
    lamp.unparent()
    lamp.unparent()  # out is out


# --- computed values, links that act, partial paths --------------------------------------


def test_a_property_can_be_worked_out_when_it_is_read() -> None:
    house = Object()
    house.add_property(Property("rooms", "int", writable=False, compute=lambda h: len(rooms(h))))
    assert house.get("rooms") == 0
    house.add_child("kitchen", Object())
    assert house.get("rooms") == 1
    assert house.list_properties()["rooms"] == "int"
    with pytest.raises(PropertyError, match="cannot be set"):
        house.set("rooms", 3)


def rooms(house: Object) -> list[str]:
    return [name for name, _ in house.children()]


def test_a_link_may_find_its_target_and_act_when_it_is_set() -> None:
    house, kitchen = Object(), Object()
    house.add_child("kitchen", kitchen)
    chosen: list[Object | None] = []
    house.add_link(
        "best", "room", find=lambda: chosen[-1] if chosen else None, on_set=chosen.append
    )
    assert house.get("best") == ""
    house.set("best", "/kitchen")
    assert house.get("best") == "/kitchen"
    assert house.resolve("best") is kitchen
    house.set("best", "")
    assert chosen == [kitchen, None]
    with pytest.raises(NotFoundError):
        house.set("best", "/cellar")
    assert chosen == [kitchen, None]


def test_a_link_that_only_its_owner_changes_cannot_be_set() -> None:
    house = Object()
    house.add_link("best", "room")
    with pytest.raises(PropertyError, match="best cannot be set"):
        house.set("best", "/")


def test_a_partial_path_may_fit_several_objects() -> None:
    house = Object()
    for floor in ("first", "second"):
        house.add_child(floor, Object())
        house.resolve(floor).add_child("bath", Object())
    house.resolve("first").add_child("kitchen", Object())
    assert house.partial("kitchen") == [house.resolve("first/kitchen")]
    assert house.partial("second/bath") == [house.resolve("second/bath")]
    assert len(house.partial("bath")) == 2
    assert house.partial("cellar") == []
    assert house.has("first")
    assert not house.has("bath")
