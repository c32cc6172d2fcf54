"""What a check has found: how bad it is, what it is about, and what to do."""

from enum import IntEnum
from typing import NamedTuple


class Verdict(IntEnum):
    """How bad it is; the worst one is the exit code."""

    OK = 0
    WARNING = 1
    ERROR = 2

    @property
    def word(self) -> str:
        """How it is written."""
        return self.name.lower()


class Finding(NamedTuple):
    """One line of the doctor's."""

    verdict: Verdict
    subject: str
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(Verdict.OK, subject, text)


def warning(subject: str, text: str, advice: str) -> Finding:
    """Return what works, and may hurt."""
    return Finding(Verdict.WARNING, subject, text, advice)


def error(subject: str, text: str, advice: str = "") -> Finding:
    """Return what does not work, or must not stay."""
    return Finding(Verdict.ERROR, subject, text, advice)
