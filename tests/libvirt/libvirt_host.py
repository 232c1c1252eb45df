"""A libvirt daemon of a chosen version, with folders and configuration of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DEMO_GUEST = Path(__file__).parents[2] / "plugins" / "x86" / "guest" / "demo.bin"
# Where the private ones are mounted; made for the time of the test where libvirt is not installed.
_FOLDERS = [Path(each, "libvirt") for each in ("/var/lib", "/var/cache", "/var/log", "/etc")]
SECONDS = 90  # for anything that virsh does; a busy machine takes its time


class LibvirtFailedError(Exception):
    """The daemon did not start; the text says why."""


@dataclass(frozen=True)
class Answer:
    """What virsh said."""

    status: int
    out: str
    error: str


class LibvirtHost:
    """libvirt of `version`, unpacked in `root`, started with `start` and ended with `close`.

    Everything of it is in a mount namespace: the system's own libvirt, if there is one, neither
    sees nor is touched. Needs root.
    """

    def __init__(self, root: Path, work: Path) -> None:
        self.version = root.name
        self.log = work / "libvirtd.log"
        self._work = work
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._made = [folder for folder in _FOLDERS if not folder.exists()]
        for folder in self._made:
            folder.mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", HERE / "private-host.sh", root,
             work],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            _, error = self._holder.communicate()
            self._remove_folders()
            raise LibvirtFailedError(error.decode().strip())
        self.emulator = self._make_emulator()

    def _make_emulator(self) -> Path:
        """The console script as the installed package has it, with this interpreter and cache."""
        path = self._work / "cpufw-system-x86_64"
        cache = os.environ["XDG_CACHE_HOME"]
        path.write_text(
            f"#!{sys.executable}\n"
            # libvirt gives each guest a home of its own, where nothing is compiled yet.
            f"import os, sys\nos.environ['XDG_CACHE_HOME'] = {cache!r}\n"
            "from cpufw.system import main\nsys.exit(main())\n",
            encoding="utf-8",
        )
        path.chmod(0o755)
        return path

    def _inside(self, *command: str | Path) -> list[str | Path]:
        return ["nsenter", "--mount", f"--target={self._holder.pid}", "--wd=/", *command]

    def start(self) -> None:
        """Start virtlogd and libvirtd, and wait until libvirtd answers."""
        self._daemons.append(self._daemon("virtlogd"))
        self.start_libvirtd()

    def start_libvirtd(self) -> None:
        """Start libvirtd; guests of an earlier one are found again."""
        libvirtd = self._daemon("libvirtd")
        self._daemons.append(libvirtd)
        deadline = time.monotonic() + SECONDS
        while self.virsh("uri").status != 0:
            if libvirtd.poll() is not None or time.monotonic() > deadline:
                raise LibvirtFailedError(f"libvirtd does not answer: {self.log_tail()}")
            time.sleep(0.1)

    def _daemon(self, name: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._inside(name),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop_libvirtd(self) -> None:
        """End libvirtd; its guests go on."""
        libvirtd = self._daemons.pop()
        libvirtd.terminate()
        libvirtd.wait(SECONDS)

    def command(self, *words: str | Path) -> list[str | Path]:
        """How virsh is started here."""
        return self._inside("virsh", "-c", "qemu:///system", *words)

    def virsh(self, *words: str | Path) -> Answer:
        """Run a virsh command."""
        done = subprocess.run(
            self.command(*words), capture_output=True, timeout=SECONDS, text=True, check=False
        )
        return Answer(done.returncode, done.stdout.strip(), done.stderr.strip())

    def ok(self, *words: str | Path) -> str:
        """Run a virsh command that must succeed; what it printed."""
        answer = self.virsh(*words)
        assert answer.status == 0, f"virsh {' '.join(map(str, words))}: {answer.error}"
        return answer.out

    def log_tail(self) -> str:
        """The last lines of the daemon's log."""
        with suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(line[:300] for line in lines if ": error" in line)[-3000:]
        return ""

    def guest_log(self, name: str) -> str:
        """What the emulator of a guest printed, and how it was started."""
        path = Path(f"/proc/{self._holder.pid}/root/var/log/libvirt/qemu/{name}.log")
        return path.read_text(encoding="utf-8", errors="replace")

    def guest_pid(self, name: str) -> int:
        """The emulator's process."""
        path = Path(f"/proc/{self._holder.pid}/root/run/libvirt/qemu/{name}.pid")
        return int(path.read_text(encoding="ascii"))

    def close(self) -> None:
        """End the guests and the daemons."""
        if any(daemon.poll() is None for daemon in self._daemons):
            with suppress(subprocess.TimeoutExpired):
                for name in self.virsh("list", "--name").out.split():
                    self.virsh("destroy", name)
        for path in Path(f"/proc/{self._holder.pid}/root/run/libvirt/qemu").glob("*.pid"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text(encoding="ascii")), signal.SIGKILL)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(SECONDS)
        self._holder.communicate()
        self._remove_folders()

    def _remove_folders(self) -> None:
        for folder in self._made:
            with suppress(OSError):  # another test process has a libvirt there, too
                folder.rmdir()


def domain_xml(
    host: LibvirtHost,
    name: str,
    *,
    machine: str = "pc-i440fx-7.2",
    cpu: str = "",
    kernel: Path = DEMO_GUEST,
    boot: str = "",
    devices: str = "",
    memory: int = 64,
    vcpus: str = "<vcpu current='1'>4</vcpu>",
) -> str:
    """A domain that runs the demonstration guest on `host`."""
    cpu = cpu or cpu_xml()
    return f"""
<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  {vcpus}
  <os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel>{boot}</os>
  <features><acpi/></features>
  {cpu}
  <devices>
    <emulator>{host.emulator}</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    {devices}
  </devices>
</domain>"""


def cpu_xml(model: str = "Conroe", features: str = "", topology: str = "") -> str:
    """A named model; what of it this host lacks is no reason to refuse it."""
    topology = topology or "<topology sockets='1' cores='4' threads='1'/>"
    return (
        f"<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>{model}</model>"
        f"{topology}{features}</cpu>"
    )


def counts(text: str) -> dict[str, int]:
    """What `virsh vcpucount` says: `{"maximum config": 4, "current live": 1}`."""
    return {f"{a} {b}": int(n) for a, b, n in re.findall(r"(\w+)\s+(\w+)\s+(\d+)", text)}


def eventually(happened: object, what: str, seconds: float = SECONDS) -> None:
    """Wait until `happened()` is true."""
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what}: not in {seconds} s"
        time.sleep(0.1)
