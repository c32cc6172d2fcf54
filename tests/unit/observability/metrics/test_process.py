"""prometheus-client's own collector is the oracle."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.observability.metrics import process
from gateway.observability.metrics.process import LinuxProcess, ProcessMetrics, open_files

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells this much")
MOVING = {"process_cpu_seconds": 1.0, "process_resident_memory_bytes": 1 << 24, "process_virtual_memory_bytes": 1 << 26}
"""What may differ between two looks, and by how much."""


def test_it_tells_what_prometheus_client_tells() -> None:
    oracle = ProcessCollector(registry=CollectorRegistry())
    expected, found = list(oracle.collect()), list(LinuxProcess().collect())
    assert [(each.name, each.type, each.documentation) for each in found] == [
        (each.name, each.type, each.documentation) for each in expected
    ]
    for theirs, ours in zip(expected, found, strict=True):
        # The oracle has the folder open while it lists it.
        slack = MOVING.get(ours.name, 1.0 if ours.name == "process_open_fds" else 0.0)
        assert ours.samples[0].value == pytest.approx(theirs.samples[0].value, abs=slack), ours.name


@pytest.mark.parametrize("is_size_told", [True, False], ids=["new-kernel", "old-kernel"])
def test_open_files_are_counted(monkeypatch: pytest.MonkeyPatch, *, is_size_told: bool) -> None:
    if not is_size_told:
        monkeypatch.setattr("gateway.observability.metrics.process.os.stat", lambda _: os.stat_result((0,) * 10))
    counts, opened = [open_files()], []
    for _ in range(3):
        opened.append(os.open(os.devnull, os.O_RDONLY))
        counts.append(open_files())
    for each in opened:
        os.close(each)
    assert [after - before for before, after in pairwise(counts)] == [1, 1, 1]


def test_without_proc_only_python_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "_SYSTEM", tmp_path / "stat")
    names = {family.name for family in ProcessMetrics().snapshot()}
    assert "python_info" in names
    assert not any(name.startswith("process_") for name in names)
