"""Sockets plugged into a running guest by QMP clients."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qmp_guest import CPU_TYPE, PATIENCE, QmpClient, running

pytestmark = pytest.mark.kvm

SOCKET_TYPE = "Haswell-x86_64-socket"


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[tuple[QmpClient, QmpClient]]:
    with running(tmp_path) as guest, guest.client() as one, guest.client() as other:
        one.execute("cont")
        wait_online(one, 0)
        for name in ("s1", "s2"):
            made = one.execute("object-add", qom_type=SOCKET_TYPE, id=name, cores=2, threads=1)
            assert made == {"return": {}}
        yield one, other


def wait_online(client: QmpClient, slot: int) -> None:
    """Until the guest took in hand what is in the slot; the boot CPU says nothing."""
    if slot == 0:
        client.event("RESUME")
        return
    while client.event("ACPI_DEVICE_OST")["data"]["info"]["slot"] != str(slot):
        pass


def link(client: QmpClient, value: str, index: int = 1) -> Any:
    return client.execute("qom-set", path="/machine", property=f"socket[{index}]", value=value)


def shown(client: QmpClient, index: int = 1) -> str:
    found = client.execute("qom-get", path="/machine", property=f"socket[{index}]")
    assert isinstance(found["return"], str)
    return found["return"]


def wait_empty(client: QmpClient) -> None:
    deadline = time.monotonic() + PATIENCE
    while shown(client):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_socket_comes_goes_and_comes_again(clients: tuple[QmpClient, QmpClient]) -> None:
    one, other = clients
    for _ in range(2):
        assert link(one, "/objects/s1") == {"return": {}}
        wait_online(one, 3)
        paths = [each["qom-path"] for each in other.execute("query-cpus-fast")["return"]]
        assert paths[1:] == ["/objects/s1/thread[0]", "/objects/s1/thread[1]"]
        assert link(one, "") == {"return": {}}
        while other.event("DEVICE_DELETED")["data"] != {"path": "/objects/s1"}:
            pass
        wait_empty(one)
    assert one.execute("object-del", id="s1") == {"return": {}}


def test_of_two_clients_that_fill_one_socket_one_wins(
    clients: tuple[QmpClient, QmpClient],
) -> None:
    for client, name in zip(clients, ("s1", "s2"), strict=True):
        arguments = {"path": "/machine", "property": "socket[1]", "value": f"/objects/{name}"}
        client.send(json.dumps({"execute": "qom-set", "arguments": arguments}).encode())
    answers = [client.reply() for client in clients]
    assert [list(each) for each in answers].count(["return"]) == 1
    loser = next(each["error"] for each in answers if "error" in each)
    assert loser["class"] == "GenericError"
    assert loser["desc"].startswith(f"socket[1] is taken by {shown(clients[0])}")
    assert len(clients[0].execute("query-cpus-fast")["return"]) == 3


def test_what_a_socket_fills_is_not_free_for_a_thread(
    clients: tuple[QmpClient, QmpClient],
) -> None:
    one, _ = clients
    link(one, "s1")
    place = {"socket_id": 1, "core_id": 1, "thread_id": 0}
    refused = one.execute("device_add", driver=CPU_TYPE, id="c", **place)
    assert "error" in refused
    place = {"socket_id": 0, "core_id": 1, "thread_id": 0}
    assert one.execute("device_add", driver=CPU_TYPE, id="c", **place) == {"return": {}}
    assert shown(one, 0) == "/machine/topology/socket[0]"


def test_a_thread_that_is_asked_to_leave_takes_its_socket_along(
    clients: tuple[QmpClient, QmpClient],
) -> None:
    one, _ = clients
    link(one, "s1")
    wait_online(one, 3)
    assert one.execute("device_del", id="/objects/s1/thread[1]") == {"return": {}}
    wait_empty(one)
    assert len(one.execute("query-cpus-fast")["return"]) == 1
