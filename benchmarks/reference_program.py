"""A C program of `reference/` at work: it measures once for each line it is sent."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from cpufw.core.cpu import CPUState
from cpufw_x86.cpu import X86CPU

# struct kvm_cpuid_entry2: function, index, flags, four registers, padding.
_ENTRY = struct.Struct("=7I12x")
_SIGNIFICANT_INDEX = 1


class ReferenceProgram:
    """`program` with `arguments`, started now and waiting; idle between requests."""

    def __init__(self, program: Path, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [program, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: int = 0, lines: int = 1) -> list[list[int]]:
        """Send a request; the numbers of each line of its answer.

        Raises `RuntimeError` if the program ended instead; it said why on standard error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        answer = [self._process.stdout.readline() for _ in range(lines)]
        if not all(answer):
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.wait()}")
        return [[int(word) for word in line.split()] for line in answer]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()


def write_cpuid(cpu: CPUState, path: Path) -> Path:
    """Write what `cpu` was given as CPUID for a reference program to read."""
    assert isinstance(cpu, X86CPU)
    path.write_bytes(
        b"".join(
            _ENTRY.pack(
                leaf.function,
                leaf.index,
                _SIGNIFICANT_INDEX if leaf.indexed else 0,
                *leaf.registers,
            )
            for leaf in cpu.cpuid.values()
        )
    )
    return path
