"""HMP commands about CPUs: which there are, and bringing them and taking them away by number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpufw.core.hotplug import SlotState
from cpufw.monitor.errors import QmpError
from cpufw.monitor.hmp.command import hmp
from cpufw.monitor.plugging import plug

if TYPE_CHECKING:
    from cpufw.monitor.hmp.shell import Shell


@hmp("info cpus")
def info_cpus(shell: Shell) -> str:
    """Show the CPUs and the threads that run them."""
    selected = shell.slot.index
    return "\n".join(
        f"{'*' if each['cpu-index'] == selected else ' '} CPU #{each['cpu-index']}: "
        f"thread_id={each['thread-id']}"
        for each in shell.qmp("query-cpus-fast")
    )


@hmp("info hotpluggable-cpus")
def info_hotpluggable_cpus(shell: Shell) -> str:
    """Show every place for a CPU and what is in it."""
    lines = ["Hotpluggable CPUs:"]
    for each in shell.qmp("query-hotpluggable-cpus"):
        lines += [f'  type: "{each["type"]}"', f'  vcpus_count: "{each["vcpus-count"]}"']
        if "qom-path" in each:
            lines.append(f'  qom_path: "{each["qom-path"]}"')
        lines.append("  CPUInstance Properties:")
        places = sorted(each["props"].items(), key=lambda item: item[0] != "node-id")
        lines += [f'    {name}: "{value}"' for name, value in places]
    return "\n".join(lines)


@hmp("info cpu-models")
def info_cpu_models(shell: Shell) -> str:
    """Show the CPU models, and whether this host has all that each asks for."""
    lines = []
    for each in shell.qmp("query-cpu-definitions"):
        lacking = each.get("unavailable-features")
        what = "" if lacking is None else f"lacks {', '.join(lacking)}" if lacking else "usable"
        alias = f"is {each['alias-of']}" if "alias-of" in each else ""
        lines.append(f"{each['name']:<28}{'; '.join(filter(None, (alias, what)))}".rstrip())
    return "\n".join(lines)


@hmp("cpu", "index")
def cpu(shell: Shell, index: int) -> str | None:
    """Look at this CPU from now on."""
    try:
        shell.select(index)
    except QmpError:
        return "invalid CPU index"
    return None


@hmp("cpu_set", "index online|offline")
def cpu_set(shell: Shell, index: int, state: str) -> str | None:
    """Fill the lowest empty slot with a CPU of the machine's own, or empty the highest full one.

    Slots are filled in order and emptied in order; any other index is an error that says which
    one is next.
    """
    if state not in ("online", "offline"):
        raise QmpError(f"cpu_set: '{state}' is not a state, expected online or offline")
    machine = shell.monitor.machine
    if index >= len(machine.slots):
        last = len(machine.slots) - 1
        raise QmpError(f"cpu_set: there is no CPU {index}, expected 0 to {last}")
    slot = machine.slots[index]
    with machine.hotplug.lock:
        empty = [each for each in machine.slots if each.state is SlotState.EMPTY]
        full = [each for each in machine.slots if each.state is not SlotState.EMPTY]
        if state == "online":
            if slot in full:
                raise QmpError(f"cpu_set: CPU {index} is there already ({slot.state.value})")
            if slot is not empty[0]:
                raise QmpError(
                    f"cpu_set: CPU {index} comes after CPU {empty[0].index}, which is not there "
                    "yet; slots are filled in order"
                )
            if full[-1].index > index:
                raise QmpError(
                    f"cpu_set: CPU {full[-1].index} above CPU {index} is there, plugged out of "
                    "order; use device_add for a slot in between"
                )
    if state == "online":
        # The place as it is named to plug, which is a unit's where whole units are plugged.
        place = {name: str(value) for name, value in machine.place_of(slot).items()}
        plug(shell.monitor, machine.hotpluggable_cpus()[0]["type"], "", place)
        return None
    if slot in empty:
        raise QmpError(f"cpu_set: CPU {index} is not there")
    if slot is not full[-1]:
        raise QmpError(
            f"cpu_set: CPU {index} comes before CPU {full[-1].index}, which is still there; "
            "slots are emptied from the highest down"
        )
    machine.request_unplug(slot)
    return None
