"""The scenarios that come with the load test."""

import random
from typing import Final

from loadtest.scenario import ClientPlan, Scenario


class Fanout(Scenario, frozen=True, kw_only=True):
    """One channel that everybody listens to, and one publisher."""

    clients: int = 1001
    rate: float = 20.0
    namespace: str = "live"

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Client 0 publishes, all others listen."""
        del chance
        return ClientPlan(publish=("all",)) if number == 0 else ClientPlan(subscribe=("all",))


class Chat(Scenario, frozen=True, kw_only=True):
    """Rooms in which everyone listens and talks."""

    clients: int = 200
    room_size: int = 10
    rate: float = 100.0

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Client n is in room n // room_size."""
        del chance
        room = (f"room-{number // self.room_size}",)
        return ClientPlan(subscribe=room, publish=room)


class Notify(Scenario, frozen=True, kw_only=True):
    """A channel for each user; the backend publishes into them, through the HTTP API where it is known."""

    clients: int = 300
    backends: int = 4
    rate: float = 200.0

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """The first are the backend, each for its part of the users."""
        del chance
        users = range(self.backends, self.clients)
        if number < self.backends:
            mine = tuple(f"user-{user}" for user in users if user % self.backends == number)
            return ClientPlan(publish=mine, by_api=True)
        return ClientPlan(subscribe=(f"user-{number}",))


class Dashboard(Scenario, frozen=True, kw_only=True):
    """Many channels of which the last value counts, and screens that each show several."""

    clients: int = 120
    channels: int = 50
    shown: int = 10
    sources: int = 5
    rate: float = 100.0
    namespace: str = "last"
    has_cache: bool = True

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """The first feed the channels, each its own; the others show some, whichever chance says."""
        if number < self.sources:
            mine = range(number, self.channels, self.sources)
            return ClientPlan(publish=tuple(f"gauge-{gauge}" for gauge in mine))
        shown = chance.sample(range(self.channels), min(self.shown, self.channels))
        return ClientPlan(subscribe=tuple(f"gauge-{gauge}" for gauge in shown))


class IoT(Scenario, frozen=True, kw_only=True):
    """Many devices that publish, and a few listeners who read them all."""

    clients: int = 310
    listeners: int = 10
    sites: int = 5
    rate: float = 300.0
    payload_bytes: int = 120
    namespace: str = "live"

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """The first listen, to one site each; the others publish for theirs."""
        del chance
        site = (f"site-{number % self.sites}",)
        return ClientPlan(subscribe=site) if number < self.listeners else ClientPlan(publish=site)


class Churn(Scenario, frozen=True, kw_only=True):
    """Clients that come and go all the time, while somebody publishes."""

    clients: int = 100
    publishers: int = 2
    stay_s: float = 1.0
    rate: float = 50.0

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """The first publish and stay; the others stay for `stay_s` or so, and a new one comes."""
        if number < self.publishers:
            return ClientPlan(publish=("hall",))
        return ClientPlan(
            subscribe=("hall",), lives_s=self.stay_s * chance.uniform(0.5, 1.5), away_s=chance.uniform(0, 0.2)
        )


class Storm(Scenario, frozen=True, kw_only=True):
    """All clients lose their connections at once, and come back."""

    clients: int = 300
    channels: int = 20
    publishers: int = 4
    storms: int = 1
    rate: float = 100.0

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """The first publish and stay; the others break all together, `storms` times, evenly over the plateau."""
        del chance
        if number < self.publishers:
            return ClientPlan(publish=tuple(f"crowd-{crowd}" for crowd in range(self.channels)))
        moments = tuple(self.plateau_s * (storm + 1) / (self.storms + 1) for storm in range(self.storms))
        return ClientPlan(subscribe=(f"crowd-{number % self.channels}",), breaks_s=moments)


class Idle(Scenario, frozen=True, kw_only=True):
    """Connections that are held and hear next to nothing: how many fit, and what each costs."""

    clients: int = 1000
    rate: float = 1.0
    ramp_up_s: float = 5.0
    namespace: str = "live"

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Each has a channel of its own; the first publishes to the next, so that something is checked."""
        del chance
        return ClientPlan(publish=("idle-1",)) if number == 0 else ClientPlan(subscribe=(f"idle-{number}",))


class Slow(Scenario, frozen=True, kw_only=True):
    """Some clients never read; the others must not notice."""

    clients: int = 31
    slow: int = 10
    rate: float = 100.0
    payload_bytes: int = 20_000
    namespace: str = "live"

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Client 0 publishes, the next `slow` never read."""
        del chance
        if number == 0:
            return ClientPlan(publish=("all",))
        return ClientPlan(subscribe=("all",), reads=number > self.slow)


class Mixed(Scenario, frozen=True, kw_only=True):
    """A bit of everything: fan-out, chat rooms, users' channels, clients that come and go or lose their network."""

    clients: int = 200
    rate: float = 200.0

    def client(self, number: int, chance: random.Random) -> ClientPlan:
        """Of ten clients, two are in the audience, four chat, two get notifications, one comes and goes, one breaks."""
        turn, group = number % 10, number // 10
        room = (f"room-{group}",)
        match turn:
            case 0:
                return ClientPlan(subscribe=room, publish=(*room, "all", f"user-{number + 5}", f"user-{number + 6}"))
            case 1 | 2 | 3:
                return ClientPlan(subscribe=room, publish=room)
            case 4 | 7:
                return ClientPlan(subscribe=("all",))
            case 5 | 6:
                return ClientPlan(subscribe=(f"user-{number}",))
            case 8:
                return ClientPlan(subscribe=("all",), lives_s=chance.uniform(0.5, 1.5), away_s=chance.uniform(0, 0.2))
            case _:
                return ClientPlan(subscribe=(*room, "all"), breaks_s=(chance.uniform(0.1, 0.9) * self.plateau_s,))


SCENARIOS: Final[dict[str, type[Scenario]]] = {
    kind.__name__.lower(): kind for kind in (Fanout, Chat, Notify, Dashboard, IoT, Churn, Storm, Idle, Slow, Mixed)
}
"""By the name that the command line knows them by."""
