"""One cluster for all tests of this folder, and one report of what they saw."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container_engine import ROOT
from tests.support.go_programs import UnavailableError
from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.images import saved_images
from tests.support.kubernetes.report import Report
from tests.support.kubernetes.trial import running_cluster


@pytest.fixture(scope="session")
def report() -> Iterator[Report]:
    """What is told of the trial, written when it ends."""
    made = Report()
    yield made
    made.write(ROOT / "build" / "kubernetes-report.md")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, report: Report) -> Iterator[Cluster]:
    """Three nodes with all images; where that can't be had, the tests that ask for it are skipped and say why."""
    try:
        images = saved_images(tmp_path_factory.mktemp("images") / "images.tar")
        with running_cluster(images) as made:
            report.add_versions(made)
            report.add("the cluster", f"3 nodes ready after {made.started_in_s:.0f} s")
            yield made
    except UnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where a load test's results go."""
    return tmp_path / "results.json"
