"""`-m`, memory objects and `-numa`: how much memory there is, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpufw.system.errors import CommandLineError

if TYPE_CHECKING:
    from cpufw.system.command_line import CommandLine
    from cpufw.system.keyval import Settings

DEFAULT_MEMORY = 128 << 20
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
_KINDS = {"memory-backend-ram": "anonymous", "memory-backend-memfd": "memfd"}
_SIZE_HELP = (
    "expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, "
    "mega-, giga-, tera-, peta-\nand exabytes, respectively."
)
_UNUSED = {
    "dump": ("*", "core dumps of cpufw never hold guest memory"),
    "merge": ("*", "cpufw does not ask for it"),
    "prealloc-threads": ("*", "memory is touched by one"),
    "reserve": ("*", "memory is taken when it is first written"),
    "seal": ("*", "nobody else has the file"),
    "x-use-canonical-path-for-ramblock-id": ("*", "a matter of QEMU's migration stream"),
}


@dataclass(frozen=True)
class MemoryObject:
    """A memory back end of the command line; `text` is what cpufw's `memory_backend` reads."""

    size: int
    text: str


def parse_size(settings: Settings, name: str, unit: str = "b") -> int:
    """Bytes; a number without a suffix counts `unit`s."""
    text = settings.need(name).lower()
    digits = text.rstrip("bkmgtpe")
    suffix = text[len(digits) :] or unit
    try:
        size = float(digits) if "." in digits else int(digits, 0)
        result = int(size * (1 << _UNITS[suffix]))
    except (ValueError, KeyError):
        result = -1
    if not 0 <= result < 1 << 64:
        raise settings.fail(f"Parameter '{name}' {_SIZE_HELP}")
    return result


def memory_size(line: CommandLine) -> int:
    """The guest's memory in bytes. Raises `CommandLineError`."""
    if line.memory is None:
        return DEFAULT_MEMORY
    size = parse_size(line.memory, "size", "m") if "size" in line.memory.values else DEFAULT_MEMORY
    if "maxmem" in line.memory.values and parse_size(line.memory, "maxmem", "m") != size:
        raise line.memory.fail("memory cannot be hot-plugged: leave out maxmem and slots")
    line.memory.ignore({"slots": ("*", "memory cannot be hot-plugged")})
    line.memory.done()
    return size


def memory_objects(line: CommandLine) -> dict[str, MemoryObject]:
    """The memory back ends, by id; they are taken from the other objects."""
    found = {}
    for identity, given in tuple(line.objects.items()):
        kind = str(given.values.get("qom-type", ""))
        if not kind.startswith("memory-backend-"):
            continue
        del line.objects[identity]
        del given.values["qom-type"]
        if kind not in _KINDS:
            raise given.fail(f"'{kind}' is not supported: use memory-backend-ram or -memfd")
        size = parse_size(given, "size")
        settings = [_KINDS[kind]]
        if given.switch("share", kind == "memory-backend-memfd"):
            settings.append("share=on")
        if given.switch("hugetlb"):
            settings.append("hugetlb=on")
            if given.take("hugetlbsize", "2M").lower() not in ("2m", "2097152"):
                raise given.fail("'hugetlbsize' is not supported: huge pages have 2M")
        if given.switch("prealloc", line.prealloc):
            settings.append("prealloc=on")
        _no_host_nodes(given)
        given.ignore(_UNUSED)
        given.done()
        found[identity] = MemoryObject(size, ",".join(settings))
    return found


def _no_host_nodes(given: Settings) -> None:
    if given.take("policy", "default") != "default" or any(
        name.partition(".")[0] == "host-nodes" for name in given.values
    ):
        raise given.fail("memory cannot be bound to nodes of the host: use numactl --membind")


def memory_backend(line: CommandLine, objects: dict[str, MemoryObject], size: int) -> str:
    """What cpufw's option `memory_backend` is given."""
    named = line.machine.take("memory-backend")
    if not named:
        used = list(objects.values())
        if used and len({each.text for each in used}) == 1:  # those of the NUMA nodes
            return used[0].text
        return "anonymous,prealloc=on" if line.prealloc else "anonymous"
    if named not in objects:
        raise CommandLineError(f"Memory backend '{named}' not found")
    found = objects[named]
    if found.size != size:
        raise CommandLineError(
            f"Size specified by -m option must match size of explicitly specified "
            f"'memory-backend' property: {found.size:#x} is not {size:#x}"
        )
    return found.text


def numa_options(line: CommandLine, objects: dict[str, MemoryObject]) -> list[str]:
    """The `-numa` options as cpufw takes them: sizes in the place of memory objects."""
    texts = []
    for given in line.numa:
        kind = given.need("type")
        if "memdev" in given.values:
            identity = given.take("memdev")
            if identity not in objects:
                raise given.fail(f"memdev={identity} is ambiguous or not found")
            given.values["mem"] = f"{objects[identity].size >> 10}K"
        if kind not in ("node", "cpu", "dist"):
            raise given.fail(f"'{kind}' is not supported: cpufw's tables have no HMAT")
        rest = [f"{name}={value}" for name, value in _numa_pairs(given)]
        texts.append(",".join([kind, *rest]))
    return texts


def _numa_pairs(given: Settings) -> list[tuple[str, str]]:
    # cpus= may be there several times on QEMU's command line: the text keeps them all.
    pairs = [(name, str(value)) for name, value in given.values.items() if name != "cpus"]
    several = [part for part in given.text.split(",") if part.startswith("cpus=")]
    return pairs + [("cpus", part.removeprefix("cpus=")) for part in several]
