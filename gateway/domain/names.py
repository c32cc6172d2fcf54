"""What clients call themselves, cut down to what an operator has listed: anybody may come with any name."""

from collections.abc import Iterable
from typing import Final, NamedTuple

OTHER: Final = "other"


class Called(NamedTuple):
    """The name and version of a client, as far as they are told apart; empty if it gave none, or is not known yet."""

    name: str = ""
    version: str = ""


UNKNOWN: Final = Called()


class Names:
    """The *names* and *versions* that are told apart; a client gets one of their few combinations."""

    def __init__(self, names: Iterable[str], versions: Iterable[str]) -> None:
        listed = ["", *versions]
        self._known = {(name, version): Called(name, version) for name in ["", *names] for version in listed}
        self._of_other_version = {name: Called(name, OTHER) for name in ["", *names]}
        self._other = Called(OTHER)

    def of(self, name: str, version: str) -> Called:
        """Return what a client counts as that calls itself *name*, in *version*."""
        return self._known.get((name, version)) or self._of_other_version.get(name, self._other)
