"""How often somebody may try to log in: what makes guessing a key hopeless, and harms nobody else."""

from typing import Final

from gateway.domain.addresses import address_key

_BURST: Final = 5
"""Failures that an address has at once; then it gets another try each `_INTERVAL_S`."""
_INTERVAL_S: Final = 10.0
_MAX_ADDRESSES: Final = 4096


class LoginLimit:
    """Counts failed logins by address. Who has none left is not even heard: else the right guess would still count.

    Times are of one monotonic clock.
    """

    def __init__(self) -> None:
        self._free_at_s: dict[str, float] = {}

    def wait_s(self, address: str, *, now_s: float) -> float:
        """Return how long *address* has to wait before it may try; 0: not at all."""
        owed_s = self._free_at_s.get(address_key(address), 0.0) - now_s
        return max(0.0, owed_s - (_BURST - 1) * _INTERVAL_S)

    def note_failure(self, address: str, *, now_s: float) -> None:
        """Count a login that failed."""
        site = address_key(address)
        owed_until_s = max(self._free_at_s.pop(site, 0.0), now_s) + _INTERVAL_S
        if len(self._free_at_s) >= _MAX_ADDRESSES:
            del self._free_at_s[next(iter(self._free_at_s))]  # the one that has been quiet for the longest time
        self._free_at_s[site] = owed_until_s
