"""What each option becomes, and what is refused by name rather than lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from system_lines import attempt

from cpufw.framework import Framework
from cpufw.system import option_table
from cpufw.system.chardevs import Chardevs
from cpufw.system.command_line import parse_command_line
from cpufw.system.errors import CommandLineError
from cpufw.system.guest import build_machine
from cpufw.system.keyval import parse_settings
from cpufw.system.memory import memory_backend, memory_objects, memory_size, numa_options

DEMO = str(Path(__file__).parents[2] / "plugins" / "x86" / "guest" / "demo.bin")


def test_settings_in_both_spellings() -> None:
    text = parse_settings("device", "isa-serial,chardev=a,,b,index=1,on", "driver")
    assert text.values == {"driver": "isa-serial", "chardev": "a,b", "index": "1", "on": "on"}
    given = {"driver": "file", "cache": {"direct": True}, "l": [1, {"x": "y"}]}
    json_text = parse_settings("blockdev", json.dumps(given))
    assert json_text.values == {
        "driver": "file", "cache.direct": True, "l.0": 1, "l.1.x": "y",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{", "[]", '{"a":', "{" * 5000, "=x", ",a=b"])
def test_settings_that_are_none(text: str) -> None:
    with pytest.raises(CommandLineError, match="-object"):
        parse_settings("object", text).done()


_NAMES = st.sampled_from(sorted({**option_table.SERVED, **option_table.UNUSED}))
_WORDS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[a-z]{1,8}(,[a-z.-]{1,12}(=[a-z0-9:/]{0,9})?){0,4}", fullmatch=True),
    st.dictionaries(st.text(max_size=8), st.integers() | st.text() | st.booleans(), max_size=4).map(
        json.dumps
    ),
)


@given(st.lists(st.tuples(_NAMES, _WORDS), max_size=6))
def test_any_command_line_is_taken_or_refused_in_a_sentence(options: list[tuple[str, str]]) -> None:
    arguments = []
    for name, word in options:
        arguments += [f"-{name}", *([word] if option_table.SERVED.get(name) else [])]
    said = "taken"
    try:
        parse_command_line(arguments)
    except CommandLineError as error:
        said = str(error)
    assert said


def test_memory_and_where_it_comes_from() -> None:
    line = parse_command_line(
        ["-m", "size=131072k", "-machine", "pc,memory-backend=pc.ram", "-object",
         '{"qom-type":"memory-backend-memfd","id":"pc.ram","size":134217728,"share":true}']
    )  # fmt: skip
    size, objects = memory_size(line), memory_objects(line)
    assert size == 128 << 20
    assert memory_backend(line, objects, size) == "memfd,share=on"


@pytest.mark.parametrize(
    ("text", "size"), [("64", 64 << 20), ("1G", 1 << 30), ("1.5G", 3 << 29), ("512k", 512 << 10)]
)
def test_memory_sizes(text: str, size: int) -> None:
    assert memory_size(parse_command_line(["-m", text])) == size


def test_memory_that_does_not_match_its_object() -> None:
    line = parse_command_line(
        ["-m", "64M", "-machine", "pc,memory-backend=m", "-object",
         "memory-backend-ram,id=m,size=32M"]
    )  # fmt: skip
    size, objects = memory_size(line), memory_objects(line)
    with pytest.raises(CommandLineError, match="must match size"):
        memory_backend(line, objects, size)


def test_numa_nodes_take_the_size_of_their_objects() -> None:
    line = parse_command_line(
        ["-object", "memory-backend-ram,id=m0,size=64M", "-numa",
         "node,nodeid=0,cpus=0-1,cpus=3,memdev=m0", "-numa", "dist,src=0,dst=0,val=10"]
    )  # fmt: skip
    objects = memory_objects(line)
    assert numa_options(line, objects) == [
        "node,nodeid=0,mem=65536K,cpus=0-1,cpus=3", "dist,src=0,dst=0,val=10",
    ]  # fmt: skip


def test_every_option_of_the_tables_is_in_one() -> None:
    tables = (option_table.SERVED, option_table.UNUSED, option_table.REFUSED)
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert option_table.UNUSED_VALUES.keys() <= option_table.UNUSED.keys()


@pytest.mark.parametrize("name", sorted(option_table.REFUSED))
def test_options_that_cpufw_has_not_are_refused_by_name(name: str) -> None:
    takes_value, why = option_table.REFUSED[name]
    said = attempt([f"-{name}", *(["x"] if takes_value else [])])
    assert said.startswith(f"-{name}")
    assert said.endswith(f"not supported: {why}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-nosuch"], "-nosuch: invalid option"),
        (["-m"], "-m: requires an argument"),
        (["disk.img"], "disk.img: disks are named by -drive file=disk.img,format=raw,if=virtio"),
        (["-machine", "nosuch"], "unsupported machine type\nUse -machine help to list supported"),
        (["-machine", "q35,foo=on"], "Property 'pc-q35-10.0-machine.foo' not found"),
        (["-machine", "q35,smm=on"], "'smm=on' is not supported: cpufw's PC has no system"),
        (["-accel", "nosuch"], "-accel nosuch: invalid accelerator nosuch"),
        (["-uuid", "xx"], "-uuid xx: failed to parse UUID string: wrong format"),
        (["-m", "foo"], "-m foo: Parameter 'size' expects a non-negative number below 2^64"),
        (["-m", "64M,slots=2,maxmem=128M"], "memory cannot be hot-plugged: leave out maxmem"),
        (["-smp", "x"], "Parameter 'smp.cpus' expects integer"),
        (["-smp", "1,foo=2"], "Parameter 'smp.foo' is unexpected"),
        (["-object", "nosuch,id=a"], "Parameter 'qom-type' does not accept value 'nosuch'"),
        (["-mon", "chardev=x"], ""),  # seen when the monitors are made, see below
        (["-display", "gtk"], "-display gtk: cpufw has no display: use -display none"),
        (["-rtc", "base=localtime"], "'base=localtime' is not supported"),
        (["-audiodev", "alsa,id=a"], "cpufw has no sound: use driver=none"),
        (["-net", "user"], "-net user: not supported: only none is taken"),
        (["-global", "e1000.x=1"], "-global e1000.x=1: not supported: cpufw has no device e1000"),
        (["-action", "reboot=foo"], "'foo' is not one of reset, shutdown"),
        (["-device", "e1000"], "-device e1000: 'e1000' is not a valid device model name: cpufw"),
        (["-device", "virtio-blk-pci,drive=a"], "use -drive …,if=virtio"),
        (["-device", "isa-serial,chardev=a"], "Property 'chardev' can't find value 'a'"),
        (["-drive", "file=x,format=qcow2"], "only raw images are supported"),
        (["-drive", "file=x,if=none,id=d"], "no device uses it: add if=virtio"),
        (["-chardev", "null,id=a", "-chardev", "null,id=a"], "Duplicate ID 'a' for chardev"),
        (["-serial", "tcp::1"], "'tcp::1' is not null, stdio, pty, file:PATH"),
        (["-bios", "nosuch.bin"], "could not load PC BIOS 'nosuch.bin'"),
    ],
)
@pytest.mark.kvm
def test_mistakes(arguments: list[str], said: str) -> None:
    answer = attempt([*([] if "-bios" in arguments else ["-kernel", DEMO]), *arguments])
    assert said in answer
    assert answer or not said


@pytest.mark.parametrize(
    ("chardev", "said"),
    [
        ("socket,id=a,path=x,server=off", "cpufw does not connect to others"),
        ("socket,id=a,path=x,server=on", "cpufw does not wait for a client: add wait=off"),
        ("pty,id=a", "a monitor needs a socket"),
        ("null,id=b", 'chardev "a" not found'),
    ],
)
def test_monitors_that_lead_nowhere(chardev: str, said: str) -> None:
    line = parse_command_line(["-chardev", chardev, "-mon", "chardev=a,mode=control"])
    with pytest.raises(CommandLineError, match=said):
        Chardevs(line).monitors()


@pytest.mark.kvm
def test_the_machine_of_a_command_line(framework: Framework, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    line = parse_command_line(
        ["-machine", "pc-q35-2.6,usb=off,kernel-irqchip=split", "-accel", "kvm",
         "-cpu", "Haswell,-avx,check=off", "-global", "Haswell-x86_64-cpu.stepping=2",
         "-smp", "2,maxcpus=8,sockets=2,cores=2,threads=2", "-m", "64M", "-kernel", DEMO,
         "-device", "Haswell-x86_64-cpu,id=cpu2,socket-id=1,core-id=0,thread-id=0",
         "-blockdev", f'{{"driver":"file","filename":"{disk}","node-name":"f"}}',
         "-blockdev", "driver=raw,node-name=r,file=f,read-only=on",
         "-device", "virtio-blk-device,drive=r,serial=one", "-device", "virtio-rng-device",
         "-device", "pvpanic,ioport=1285", "-serial", "null", "-serial", f"file:{tmp_path}/com2"]
    )  # fmt: skip
    chardevs = Chardevs(line)
    with build_machine(framework, line, chardevs) as machine:
        assert machine.machine_type.name == "pc-q35-2.6"
        assert machine.topology.max_cpus == 8
        assert [cpu.slot.index for cpu in machine.cpus() if cpu.slot is not None] == [0, 1, 4]
        identity = machine.cpus()[0].expand(machine).identity
        assert (identity["stepping"], identity["l3-cache"]) == (2, False)
        (drive,) = machine.board.options.drives  # type: ignore[attr-defined]
        assert (drive.file, drive.read_only, drive.id) == (str(disk), True, "one")
    assert chardevs.labels == {"serial0": "null", "serial1": f"file:{tmp_path}/com2"}
    chardevs.close()
