"""A load test that runs beside what a test does meanwhile."""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from loadtest import results
from tests.support.container_engine import ROOT
from tests.support.waiting import eventually

_TIMEOUT_S: Final = 300


class Load:
    """A load test that runs."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], path: Path) -> None:
        self._path = path
        self._log = path.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it still loads."""
        return self._process.poll() is None

    def reaches(self, phase: str) -> None:
        """Wait until a phase begins."""
        eventually(lambda: f"-- {phase}" in self.text or not self.is_running, lambda: self.text)
        assert self.is_running, self.text

    def end(self) -> results.Results:
        """Wait for its end, and return its results; it must have passed."""
        try:
            code = self._process.wait(timeout=_TIMEOUT_S)
        finally:
            self.stop()
        assert code == 0, self.text
        return results.read(self._path)

    def finish(self) -> results.Results:
        """Have it publish no more and conclude, and return its results; it must have passed."""
        assert self.is_running, self.text
        self._process.send_signal(signal.SIGINT)
        return self.end()

    def stop(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
