"""What a CPU asks for on a captured host, where no machine can be built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from cpufw.core.accel import defaults_of, filled_in
from cpufw.core.capture import HostCapture
from cpufw.core.cpu import CPUClass, CPUState
from cpufw.core.features import FeatureSet
from cpufw.core.model import CPUModel, Expansion
from cpufw.errors import ModelError

if TYPE_CHECKING:
    from cpufw.core.machine import Machine


class _OnHost:
    """What of a `Machine` an expansion asks, with the captured host as its accelerator."""

    machine_type = None

    def __init__(self, host: HostCapture) -> None:
        self.accelerator = host
        self.accelerator_name = host.name

    def resolve_model(self, model: CPUModel) -> CPUModel:
        """`host` and `max` are what this host gives; every other model is itself."""
        return filled_in(model, self.accelerator) if model.dynamic else model

    def compat_values(self, _: CPUClass) -> Mapping[str, Any]:
        """None: it is no machine of an older type."""
        return {}

    def default_features(self, model: CPUModel) -> tuple[FeatureSet, FeatureSet]:
        """What the host's accelerator turns on and off on a named model."""
        return defaults_of(self.accelerator, model)


def expand_on(cpu: CPUState, host: HostCapture) -> Expansion:
    """What `cpu`, which is not realized, would ask of the accelerator of `host`.

    Raises `ModelError` if it is of another architecture or contradicts itself.
    """
    arch = cpu.architecture.name
    if arch != host.arch:
        raise ModelError(
            f"{host.name} is a host of architecture {host.arch}, CPU model '{cpu.model.name}' is "
            f"of {arch}"
        )
    return cpu.expand(cast("Machine", _OnHost(host)))
