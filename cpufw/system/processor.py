"""`-cpu`, and what QEMU says of a model that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpufw.core.model import CPURequest, parse_cpu
from cpufw.errors import CpufwError, NotFoundError, PropertyError
from cpufw.system.errors import CommandLineError

if TYPE_CHECKING:
    from cpufw.core.cpu import CPUClass
    from cpufw.framework import Framework
    from cpufw.system.keyval import Settings

_ADDRESS_BITS = ("phys-bits", "guest-phys-bits")


def cpu_request(framework: Framework, arch: str, text: str, globals_: list[Settings]) -> CPURequest:
    """What `-cpu text` and the global properties of its type ask for.

    Raises `CommandLineError`.
    """
    if not text:
        raise CommandLineError("-cpu option cannot be empty")
    try:
        request = parse_cpu(text)
    except CpufwError:
        raise CommandLineError(f"-cpu {text}: a part between commas is empty") from None
    try:
        cpu_class = framework.find_model(request.model, arch)
    except NotFoundError:
        raise CommandLineError(f"unable to find CPU model '{request.model}'") from None
    properties = dict(request.properties)
    for each in globals_:
        properties.setdefault(each.need("property"), each.take("value"))
    for name in (*request.plus, *request.minus):
        if not _has(cpu_class, name):
            raise CommandLineError(f"Property '{cpu_class.type_name}.{name}' not found")
    for name, value in properties.items():
        _check(cpu_class, name, value)
    return CPURequest(request.model, request.plus, request.minus, properties)


def _has(cpu_class: CPUClass, name: str) -> bool:
    return name in cpu_class.properties or name in cpu_class.model.table


def _check(cpu_class: CPUClass, name: str, value: str) -> None:
    owner = cpu_class.type_name
    before = f"can't apply global {owner}.{name}={value}: "
    try:
        cpu_class(**{name: value})
    except PropertyError as error:
        raise CommandLineError(_wording(error, cpu_class, name, value, before)) from None


def _wording(error: PropertyError, cpu_class: CPUClass, name: str, value: str, before: str) -> str:
    if name in _ADDRESS_BITS and error.reason != "no-property":
        return f"{name} should be between 32 and 52  (but is {value})"
    match error.reason:
        case "no-property":
            return f"{before}Property '{cpu_class.type_name}.{name}' not found"
        case "wrong-type" if error.facts["type"] == "bool":
            return f"{before}Parameter '{name}' expects 'on' or 'off'"
        case "wrong-type":
            return f"{before}Parameter '{name}' expects a number"
        case "out-of-type":
            _, most = cpu_class.properties[name].bounds()
            return f"{before}parameter '{name}' can be at most {most}"
    if name == "vendor":
        return f"{before}value of property 'vendor' must consist of exactly 12 characters"
    return f"{before}{error}"
