"""The captured hosts of the tree can run what their files' names say, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from captures import FILES, FOLDER, expectation

from cpufw.fleet.capture import load_capture
from cpufw.fleet.capture_file import dump
from cpufw.fleet.explain import explain
from cpufw.framework import Framework


def test_there_are_hosts_of_both_vendors_and_from_both_sources(framework: Framework) -> None:
    hosts = [load_capture(path, framework) for path in FILES]
    assert len(hosts) >= 8
    assert {host.identity["vendor"] for host in hosts} == {"GenuineIntel", "AuthenticAMD"}
    assert sum(host.source.startswith("published CPUID dump") for host in hosts) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_host_runs_what_its_name_says(path: Path, framework: Framework) -> None:
    host = load_capture(path, framework)
    runs, not_ = expectation(path)
    assert not framework.unavailable_features(f"{runs}-x86_64-cpu", host)
    algebra = framework.algebra("x86_64")
    assert explain(algebra, runs, [host]).runs
    missing = framework.unavailable_features(f"{not_}-x86_64-cpu", host)
    assert missing
    explained = explain(algebra, not_, [host])
    assert not explained.runs
    assert explained.missing
    assert {each.name for each in explained.missing} <= set(missing)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_read_is_written_again_to_the_letter(path: Path, framework: Framework) -> None:
    host = load_capture(path, framework)
    assert dump(host, framework.catalogue(host.arch).table) == path.read_text(encoding="utf-8")


def test_nothing_in_the_folder_names_a_machine_or_a_user() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".xml", ".json", ".cpuid"):
            text = path.read_text(encoding="utf-8")
            assert "hostname" not in text
            assert "/home/" not in text
