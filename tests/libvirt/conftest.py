"""One libvirt of each version for all tests here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from libvirt_host import LibvirtFailedError, LibvirtHost
from libvirt_packages import folder, versions


def _problem(version: str) -> str | None:
    """Why libvirt of `version` cannot be run here."""
    if not folder(version).is_dir():
        return f"libvirt {version} is not there: make libvirt fetches it"
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "libvirt is run in a mount namespace of its own, which takes root"
    return None


@pytest.fixture(scope="session", params=versions())
def libvirt(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LibvirtHost]:
    """A daemon of each version, one after the other."""
    problem = _problem(request.param)
    if problem is not None:
        pytest.skip(problem)
    try:
        host = LibvirtHost(folder(request.param), tmp_path_factory.mktemp("libvirt"))
    except LibvirtFailedError as error:
        pytest.skip(f"no mount namespace can be had: {error}")
    try:
        host.start()
        yield host
    finally:
        host.close()
