"""What a trial saw, as a table for the README."""

from datetime import UTC, datetime
from pathlib import Path

from loadtest.results import Results
from tests.support.kubernetes.cluster import Cluster


class Report:
    """Rows of what was done, and what came of it."""

    def __init__(self) -> None:
        self._versions = ""
        self._rows: list[tuple[str, str]] = []

    def add(self, done: str, came: str) -> None:
        """Tell what was done and what came of it."""
        self._rows.append((done, came))

    def add_load(self, done: str, found: Results, more: str = "") -> None:
        """Tell what was done under load, and what the load test's oracle says of it."""
        seen, cut = found.verification, sum(second.reconnects for second in found.timeline)
        told = (
            f"{seen.delivered:,} deliveries: {seen.lost} lost, {seen.duplicated} doubled, {seen.reordered} reordered; "
        )
        told += f"{cut} reconnects, {seen.recovered} subscriptions recovered"
        self.add(done, f"{told}; {more}" if more else told)

    def add_versions(self, cluster: Cluster) -> None:
        """Tell what the cluster runs."""
        info = cluster.get("node", "n1")["status"]["nodeInfo"]
        self._versions = (
            f"Kubernetes {info['kubeletVersion']}, {info['containerRuntimeVersion'].replace('://', ' ')}, "
            f"kube-proxy by nftables, Linux {'.'.join(info['kernelVersion'].split('.')[:2])}"
        )

    def write(self, path: Path) -> None:
        """Write it as Markdown; without rows nothing is written."""
        if not self._rows:
            return
        path.parent.mkdir(exist_ok=True)
        head = f"{datetime.now(UTC):%Y-%m-%d}, {self._versions}\n\n| what was done | what came of it |\n|---|---|\n"
        rows = "".join(f"| {done} | {came} |\n" for done, came in self._rows)
        path.write_text(head + rows, encoding="utf-8")
