"""Ask QEMU what its Arm CPUs show, and write tests/data/qemu10/arm-measured.json.xz.

    python tests/arm/measure_qemu_arm.py FOLDER_OF_QEMU_SYSTEM_ARM_AND_AARCH64

Half a minute. Every machine is stopped at reset; gdb's stub steps single instructions.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from qemu_arm_reference import DATA, load
from qemu_gdb import Emulator, RefusedError

Case = TypeVar("Case")

VECTOR_MODELS = ("a64fx", "cortex-a710", "neoverse-n2", "neoverse-v1")
SME_LENGTHS = (128, 256, 512, 1024, 2048)
M_BOARDS = {
    "cortex-m0": "microbit",
    "cortex-m3": "mps2-an385",
    "cortex-m4": "mps2-an386",
    "cortex-m7": "mps2-an500",
    "cortex-m33": "mps2-an505",
    "cortex-m55": "mps3-an547",
}
# Offsets from 0xe000ed00, the System Control Block (Armv8-M ARM DDI 0553).
M_REGISTERS = {
    0x00: "CPUID",
    **{0x40 + 4 * i: f"ID_{n}" for i, n in enumerate(("PFR0", "PFR1", "DFR0", "AFR0"))},
    **{0x50 + 4 * i: f"ID_MMFR{i}" for i in range(4)},
    **{0x60 + 4 * i: f"ID_ISAR{i}" for i in range(6)},
    0x78: "CLIDR",
    0x7C: "CTR",
    0x90: "MPU_TYPE",
    **{0x240 + 4 * i: f"MVFR{i}" for i in range(3)},
}
VIRT_VERSIONS = ("2.6", "2.7", "3.0", "6.2", "7.0", "9.0", "9.1", "9.2", "10.0")
VIRT_MODELS = ("max", "cortex-a57", "cortex-a710", "cortex-a15", "a64fx")
SMP_CASES = (
    *(("aarch64", "max", smp) for smp in ("4", "9", "1,maxcpus=20")),
    *(("aarch64", model, "4") for model in ("cortex-a57", "cortex-a15", "cortex-a55")),
    *(("aarch64", model, "9") for model in ("cortex-a57", "neoverse-n1")),
    *(("aarch64", "neoverse-n1", "4"), ("aarch64", "a64fx", "20")),
    *(("aarch64", "cortex-a15", "4,maxcpus=12"), ("arm", "max", "9")),
)
SME_CASES = (
    "", "sme256=on", "sme128=on,sme1024=on", "sme512=off", "sme128=off", "sme128=off,sme2048=off",
    "sme2048=on,sme256=off", "sme=off", "sve=off", "sve128=on", "sve256=on,sme128=on",
    "sme256=off,sme512=off,sme1024=off,sme2048=off", "sme=off,sme128=on", "sve=off,sme128=on",
    "sme=off,sme128=off", "sme128=on,sme256=off",
    "sme128=off,sme256=off,sme512=off,sme1024=off,sme2048=off",
)  # fmt: skip
MAX_CASES = (
    "sme256=off", "sme=off", "sve=off", "sve=off,sme=on", "x-rme=on", "has_el3=off,x-rme=on",
    "sve=off,pauth=off,lpa2=off,sme=off,pmu=off", "cntfrq=1000", "sme_fa64=off", "pauth-impdef=on",
)  # fmt: skip


class Survey:
    """The questions; each method is one part of the document."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = load("arm-idregs.json")

    def emulator(self, arch: str, machine: str, cpu: str, *options: str) -> Emulator:
        return Emulator(self.folder / f"qemu-system-{arch}", machine, cpu, *options)

    def registers(self, arch: str, machine: str, cpu: str, *options: str) -> dict[str, str]:
        try:
            with self.emulator(arch, machine, cpu, *options) as emulator:
                return emulator.id_registers()
        except RefusedError as refused:
            return {"error": str(refused)}

    def plain(self) -> Any:
        cases = [
            (arch, model, machine)
            for arch, models in self.models.items()
            for model, machines in models.items()
            for machine, answer in machines.items()
            if "regs" in answer
        ]
        return _nested(cases, lambda c: self.registers(c[0], c[2], c[1]))

    def switched(self) -> Any:
        cases = []
        for arch, models in self.models.items():
            for model, machines in models.items():
                if not model.startswith("pxa2") or model == "pxa270":
                    settings = _settings(machines["none"].get("props", {}))
                    cases += [(arch, model, setting) for setting in settings]
        cases += [("aarch64", "max", setting) for setting in MAX_CASES]
        return _nested(
            dict.fromkeys(cases), lambda c: self.registers(c[0], "none", f"{c[1]},{c[2]}")
        )

    def m_profile(self) -> dict[str, Any]:
        found = {}
        for model, board in M_BOARDS.items():
            plain = self._m_registers(model, board)
            with self.emulator("arm", board, model) as emulator:
                props = {
                    name: value
                    for name in ("vfp", "dsp", "has-mpu", "cfgend", "pmsav7-dregion")
                    if not isinstance(value := emulator.property(name), dict)
                }
            # What the core has is set on the container of the core and its interrupt controller.
            switched = {
                setting: self._m_registers(model, board, *_globals("armv7m", setting))
                for setting in ("vfp=off", "dsp=off", "vfp=off,dsp=off")
            }
            found[model] = {"registers": plain, "props": props, "switched": switched}
        return found

    def _m_registers(self, model: str, board: str, *options: str) -> dict[str, str]:
        with self.emulator("arm", board, model, *options) as emulator:
            values = {n: emulator.memory(0xE000ED00 + at) for at, n in M_REGISTERS.items()}
        return {name: hex(value) for name, value in values.items() if value is not None}

    def mte(self) -> dict[str, str]:
        return {
            model: self.registers("aarch64", "virt,mte=on", model)["ID_AA64PFR1_EL1"]
            for model in ("max", "cortex-a710", "neoverse-n2")
        }

    def expansions(self) -> list[Any]:
        found = []
        with self.emulator("aarch64", "none", "max") as emulator:
            for model, props in _expansion_cases():
                answer = emulator.ask(
                    "query-cpu-model-expansion", type="full", model={"name": model, "props": props}
                )
                case: dict[str, Any] = {"model": model, "props": props}
                if "error" in answer:
                    case["error"] = answer["error"]["desc"]
                else:
                    case["result"] = answer["model"]["props"]
                found.append(case)
        return found

    def lengths(self, kind: str, settings: Iterable[str]) -> dict[str, Any]:
        def ask(setting: str) -> Any:
            lengths = SME_LENGTHS if kind == "sme" else range(128, 2049, 128)
            try:
                with self.emulator("aarch64", "none", f"max,{setting}".rstrip(",")) as emulator:
                    names = [f"{kind}{length}" for length in lengths]
                    return [name for name in names if emulator.property(name)]
            except RefusedError as refused:
                return f"error: {refused}"

        settings = list(settings)
        answers = _parallel(settings, ask)
        names = [f"max,{setting}".rstrip(",") for setting in settings]
        return dict(zip(names, answers, strict=True))

    def virt(self) -> Any:
        cases = [(version, model) for version in VIRT_VERSIONS for model in VIRT_MODELS]
        return _nested(cases, lambda c: self.registers("aarch64", f"virt-{c[0]}", c[1]))

    def smp(self) -> dict[str, Any]:
        return {
            f"{arch} {model} {smp}": self.registers(arch, "virt", model, "-smp", smp)
            for arch, model, smp in SMP_CASES
        }

    def affinity(self) -> dict[str, list[int]]:
        found = {}
        for smp in ("20", "sockets=2,clusters=2,cores=2,threads=2", "300"):
            with self.emulator("aarch64", "virt", "max", "-smp", smp) as emulator:
                paths = [cpu["qom-path"] for cpu in emulator.ask("query-cpus-fast")]
                found[smp] = [
                    emulator.ask("qom-get", path=path, property="mp-affinity") for path in paths
                ]
        return found


def _settings(props: dict[str, Any]) -> list[str]:
    """Each switch turned round, and pairs that belong together."""
    own = ("backcompat", "hotplug", "realized", "start-powered-off")
    found = [
        f"{name}={'off' if value else 'on'}"
        for name, value in props.items()
        if isinstance(value, bool) and not name.startswith(own) and not name[3:].isdigit()
    ]
    pairs = ["has_el2=off,has_el3=off", "vfp=off,neon=off", "vfp-d32=off,neon=off"]
    pairs += ["vfp-d32=off,neon=off,vfp=off", "aarch64=off,pmu=off"]
    return found + [p for p in pairs if all(s.partition("=")[0] in props for s in p.split(","))]


def _expansion_cases() -> list[tuple[str, dict[str, bool]]]:
    chance = random.Random(7)
    lengths = range(128, 2049, 128)

    def some(names: list[str], most: int) -> dict[str, bool]:
        chosen = chance.sample(names, chance.randint(1, most))
        return {name: chance.random() < 0.5 for name in chosen}

    cases: list[tuple[str, dict[str, bool]]] = [
        (model, {}) for model in ("max", *VECTOR_MODELS, "cortex-a57", "cortex-a76")
    ]
    cases += [("max", {f"sve{n}": on}) for n in lengths for on in (True, False)]
    for _ in range(220):
        short = lengths[:8] if chance.random() < 0.6 else lengths
        case = some([f"sve{n}" for n in short], 4)
        if chance.random() < 0.08:
            case["sve"] = chance.random() < 0.5
        cases.append(("max", case))
    for model in VECTOR_MODELS:
        few = (128, 256, 384, 512, 1024)
        cases += [(model, {f"sve{n}": on}) for n in few for on in (True, False)]
        cases += [(model, {"sve": False}), (model, {"sve": False, "sve128": False})]
        cases.append((model, {"sve512": True, "sve256": False}))
    algorithms = ["pauth", "pauth-impdef", "pauth-qarma3", "pauth-qarma5"]
    cases += [
        (chance.choice(("max", "cortex-a710", "neoverse-v1")), some(algorithms, 4))
        for _ in range(40)
    ]
    cases += [(model, {"pmu": on}) for model in ("max", "cortex-a57") for on in (True, False)]
    return cases


def _max_vq_cases() -> list[str]:
    chance = random.Random(3)
    cases = [f"sve-max-vq={vq}" for vq in (1, 2, 3, 4, 5, 8, 13, 16)]
    for _ in range(60):
        parts = [f"sve-max-vq={chance.randint(1, 8)}"]
        for vq in chance.sample(range(1, 10), chance.randint(1, 3)):
            parts.append(f"sve{vq * 128}={chance.choice(('on', 'off'))}")
        cases.append(",".join(parts))
    return [*cases, "sve=off,sve-max-vq=4"]


def _globals(driver: str, settings: str) -> list[str]:
    return [word for part in settings.split(",") for word in ("-global", f"{driver}.{part}")]


def _parallel(cases: Iterable[Case], ask: Callable[[Case], Any]) -> list[Any]:
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, cases))


def _nested(cases: Iterable[tuple[str, ...]], ask: Callable[[tuple[str, ...]], Any]) -> Any:
    """What is answered, by each part of the case in turn."""
    cases = list(cases)
    found: dict[str, Any] = {}
    for case, answer in zip(cases, _parallel(cases, ask), strict=True):
        place = found
        for key in case[:-1]:
            place = place.setdefault(key, {})
        place[case[-1]] = answer
    return found


def main(folder: Path) -> None:
    survey = Survey(folder)
    document = {
        "_meta": {"qemu": "10.0.2", "made-by": "tests/arm/measure_qemu_arm.py"},
        "plain": survey.plain(),
        "switched": survey.switched(),
        "m-profile": survey.m_profile(),
        "mte": survey.mte(),
        "expansions": survey.expansions(),
        "sve-max-vq": survey.lengths("sve", _max_vq_cases()),
        "sme": survey.lengths("sme", SME_CASES),
        "virt": survey.virt(),
        "smp": survey.smp(),
        "affinity": survey.affinity(),
    }
    text = json.dumps(document, sort_keys=True) + "\n"
    (DATA / "arm-measured.json.xz").write_bytes(lzma.compress(text.encode(), preset=9))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
