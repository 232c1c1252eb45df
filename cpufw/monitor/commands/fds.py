"""Commands about file descriptors that clients send with SCM_RIGHTS."""

from __future__ import annotations

import os
from typing import NotRequired, TypedDict

from cpufw.monitor.command import command
from cpufw.monitor.errors import QmpError
from cpufw.monitor.fdsets import FdsetFd
from cpufw.monitor.monitor import Monitor
from cpufw.monitor.session import Session


class FdsetFdInfo(TypedDict):
    fd: int
    opaque: NotRequired[str]


AddfdInfo = TypedDict("AddfdInfo", {"fdset-id": int, "fd": int})
FdsetInfo = TypedDict("FdsetInfo", {"fdset-id": int, "fds": list[FdsetFdInfo]})


@command("getfd")
def getfd(monitor: Monitor, session: Session, fdname: str) -> None:
    """Name the file descriptor that came with this command, for a later one."""
    fd = _received(session)
    if fdname[:1].isdigit():
        os.close(fd)
        raise QmpError("Parameter 'fdname' expects a name not starting with a digit")
    replaced, session.fds[fdname] = session.fds.get(fdname), fd
    if replaced is not None:
        os.close(replaced)


@command("closefd")
def closefd(monitor: Monitor, session: Session, fdname: str) -> None:
    """Close a file descriptor that `getfd` named."""
    if fdname not in session.fds:
        raise QmpError(f"File descriptor named '{fdname}' not found")
    os.close(session.fds.pop(fdname))


@command("add-fd")
def add_fd(
    monitor: Monitor, session: Session, fdset_id: int | None = None, opaque: str | None = None
) -> AddfdInfo:
    """Add the file descriptor that came with this command to a set, for `/dev/fdset/N`."""
    fd = _received(session)
    try:
        return {"fdset-id": monitor.fdsets.add(fd, fdset_id, opaque), "fd": fd}
    except QmpError:
        os.close(fd)
        raise


@command("remove-fd")
def remove_fd(monitor: Monitor, fdset_id: int, fd: int | None = None) -> None:
    """Close one file descriptor of a set, or all."""
    monitor.fdsets.remove(fdset_id, fd)


@command("query-fdsets")
def query_fdsets(monitor: Monitor) -> list[FdsetInfo]:
    """Every set of file descriptors."""
    sets = monitor.fdsets.all().items()
    return [{"fdset-id": number, "fds": [_fd(each) for each in held]} for number, held in sets]


def _fd(held: FdsetFd) -> FdsetFdInfo:
    return {"fd": held.fd} if held.opaque is None else {"fd": held.fd, "opaque": held.opaque}


def _received(session: Session) -> int:
    if not session.received_fds:
        raise QmpError("No file descriptor supplied via SCM_RIGHTS")
    fd = session.received_fds.popleft()
    session.drop_received_fds()
    return fd
