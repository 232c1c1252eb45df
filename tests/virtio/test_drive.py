"""How a user describes a disk."""

from __future__ import annotations

import pytest

from cpufw.errors import UsageError
from cpufw.virtio import Drive


@pytest.mark.parametrize(
    ("text", "drive"),
    [
        ("file=disk.raw", Drive("disk.raw")),
        ("file=a,readonly=on", Drive("a", read_only=True)),
        ("id=root,readonly=off,file=/dev/sdb", Drive("/dev/sdb", id="root")),
        ("file=a=b,id=x", Drive("a=b", id="x")),
        ("file=one,,two,id=x", Drive("one,two", id="x")),
        ("file=ends,,,id=x", Drive("ends,", id="x")),
        ("file=four,,,,,id=x", Drive("four,,", id="x")),
        ("file=,,begins", Drive(",begins")),
    ],
)
def test_a_drive(text: str, drive: Drive) -> None:
    assert Drive.parse(text) == drive


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not known, expected file="),
        ("disk.raw", "'disk.raw' is not known, expected file="),
        ("readonly=on", "names no file"),
        ("file=", "names no file"),
        ("file=a,readonly", "'readonly' is not known"),
        ("file=a,readonly=yes", "readonly is 'yes', not on or off"),
        ("file=a,file=b", "file is given twice"),
        ("file=a,format=qcow2", "'format=qcow2' is not known"),
        ("file=a,id=", "id '' is not a name"),
        ("file=a,id=1st", "id '1st' is not a name"),
        ("file=a,id=a-name-of-more-than-20-characters", "is not a name of 1 to 20"),
    ],
)
def test_what_is_no_drive(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        Drive.parse(text)
    assert problem in str(error.value)
