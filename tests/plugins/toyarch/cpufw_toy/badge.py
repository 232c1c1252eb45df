"""A toy's badge, a format of its own: `<<mini>> alarm, spring`."""

from __future__ import annotations

from cpufw.core.cpu import CPUState
from cpufw.core.model import CPURequest
from cpufw.errors import FormatError
from cpufw.formats.format import Exported, Imported, Models


class Badge:
    """Names the model and every feature; there is no room for teeth."""

    def __init__(self, arch: str) -> None:
        self.arch = arch

    def recognises(self, text: str) -> bool:
        """Whether it begins like a badge."""
        return text.startswith("<<")

    def write(self, cpu: CPUState, models: Models) -> Exported:
        """The badge of `cpu`."""
        del models
        expansion = cpu.expand()
        text = f"<<{cpu.model.name}>> {', '.join(expansion.features)}\n"
        return Exported(text, (f"teeth={expansion.identity['teeth']}",))

    def read(self, text: str, models: Models) -> Imported:
        """The CPU with this badge."""
        name, closed, features = text.strip().removeprefix("<<").partition(">> ")
        if not closed:
            raise FormatError("the badge is torn")
        model = models.find_model(name, self.arch).model
        wanted = model.table.set(filter(None, features.split(", ")))
        return Imported(
            CPURequest(name, tuple(wanted - model.features), tuple(model.features - wanted))
        )
