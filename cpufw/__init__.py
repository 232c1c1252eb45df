"""cpufw: a pluggable multi-architecture CPU model framework.

```python
import cpufw

Haswell = cpufw.cpu_class("Haswell-x86_64-cpu")
with cpufw.Machine("pc", cpu="Haswell", smp="1,maxcpus=2") as machine:
    machine.device_add("Haswell-x86_64-cpu", id="cpu1", socket_id=0, core_id=1, thread_id=0)
```

Importing this package imports nothing else; each name below loads what it needs when first used.
"""

from __future__ import annotations

from cpufw.version import __version__ as __version__

TYPE_CHECKING = False  # importing typing takes longer than all of `import cpufw` may

if TYPE_CHECKING:
    from typing import Any

    from cpufw.core.board import Outcome as Outcome
    from cpufw.core.cpu import CPUClass as CPUClass
    from cpufw.core.cpu import CPUState as CPUState
    from cpufw.core.features import FeatureSet as FeatureSet
    from cpufw.core.hotplug import HotplugEvent as HotplugEvent
    from cpufw.core.hotplug import HotplugEventKind as HotplugEventKind
    from cpufw.core.hotplug import SlotState as SlotState
    from cpufw.core.machine import Machine as MachineObject
    from cpufw.core.model import CPUModel as CPUModel
    from cpufw.errors import CpufwError as CpufwError
    from cpufw.framework import Framework as Framework

_LAZY = {
    "CPUClass": "cpufw.core.cpu",
    "CPUModel": "cpufw.core.model",
    "CPUState": "cpufw.core.cpu",
    "CpufwError": "cpufw.errors",
    "FeatureSet": "cpufw.core.features",
    "Framework": "cpufw.framework",
    "HotplugEvent": "cpufw.core.hotplug",
    "HotplugEventKind": "cpufw.core.hotplug",
    "Outcome": "cpufw.core.board",
    "SlotState": "cpufw.core.hotplug",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'cpufw' has no attribute '{name}'")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


def cpu_class(type_name: str) -> CPUClass:
    """The class of a CPU type: `cpu_class("Haswell-x86_64-cpu")`.

    Raises `cpufw.errors.NotFoundError`, which offers the nearest names.
    """
    from cpufw.framework import default

    return default().cpu_class(type_name)


def models(arch: str) -> list[CPUModel]:
    """Every model of an architecture. Raises `cpufw.errors.NotFoundError`."""
    from cpufw.framework import default

    return list(default().catalogue(arch))


def Machine(*args: Any, **options: Any) -> MachineObject:  # noqa: N802 - it makes one
    """A machine with its boot CPUs realized: see `cpufw.framework.Framework.machine`."""
    from cpufw.framework import default

    return default().machine(*args, **options)


def load_machine(path: str, **options: Any) -> MachineObject:
    """The machine that `Machine.save` wrote: see `cpufw.framework.Framework.load_machine`."""
    from cpufw.framework import default

    return default().load_machine(path, **options)
