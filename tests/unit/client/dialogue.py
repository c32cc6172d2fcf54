"""A session and a server that says what the test wants, with no time and no network between them."""

import json
import random
from typing import Any

from gateway.client.endings import Ending, Fate
from gateway.client.errors import ClientError
from gateway.client.events import ClientEvent, SubscriptionEvent, Unsubscribed
from gateway.client.membership import Membership
from gateway.client.requests import Request
from gateway.client.session import ClientSession
from gateway.client.settings import ClientSettings, SubscriptionSettings, TokenSource
from gateway.protocol.client_codec import ClientJSONCodec, ReceivedPublication, ServerMessage
from gateway.protocol.messages import Command

PING_S = 25
CONNECTED = {"client": "c1", "ping": PING_S, "pong": True}


async def no_token() -> str:
    raise AssertionError("a session fetches nothing itself")


class Notes:
    """A sink that notes what it gets."""

    def __init__(self) -> None:
        self.publications: list[tuple[Any, int]] = []
        self.events: list[SubscriptionEvent] = []
        self.errors: list[ClientError | None] = []

    def publish(self, publication: ReceivedPublication) -> None:
        self.publications.append((publication.json(), publication.offset))

    def tell(self, event: SubscriptionEvent) -> None:
        self.events.append(event)

    def end(self, event: Unsubscribed, error: ClientError | None) -> None:
        self.events.append(event)
        self.errors.append(error)


class Dialogue:
    """One session, driven by hand."""

    def __init__(
        self, settings: ClientSettings | None = None, *, token: str = "", source: TokenSource | None = None
    ) -> None:
        self.now_s = 1000.0
        self.heard_at_s = self.now_s
        self.events: list[ClientEvent] = []
        self.session = ClientSession(
            settings or ClientSettings(),
            notify=self.events.append,
            chance=random.Random(7),
            token=token,
            source=source,
        )
        self.outcomes: list[ServerMessage | ClientError] = []

    def connect(self, **reply: Any) -> list[dict[str, Any]]:
        """Connect, and return what the session sends in its greeting and after the acceptance."""
        self.session.connect(now_s=self.now_s)
        sent = self.sent()
        self.say({"id": sent[0]["id"], "connect": CONNECTED | reply})
        return [*sent, *self.sent()]

    def sent(self) -> list[dict[str, Any]]:
        """Return the commands that wait to be sent."""
        return [json.loads(line) for payload, _ in self.session.frames() for line in payload.split(b"\n")]

    def say(self, *messages: dict[str, Any]) -> None:
        """Have the server send *messages*, in one frame."""
        self.heard_at_s = self.now_s
        frame = b"\n".join(json.dumps(message).encode() for message in messages)
        self.session.receive(frame, is_text=True, now_s=self.now_s)

    def push(self, channel: str, **body: Any) -> None:
        self.say({"push": {"channel": channel, **body}})

    def answer(self, method: str, result: dict[str, Any] | None = None, **error: Any) -> None:
        """Answer the one command that is waiting to be sent, which must be *method*."""
        (command,) = self.sent()
        assert method in command, f"{method} was expected: {command}"
        self.say({"id": command["id"], "error": error} if error else {"id": command["id"], method: result or {}})

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick at its end."""
        self.now_s += seconds
        self.session.tick(now_s=self.now_s, heard_at_s=self.heard_at_s)

    def join(
        self,
        channel: str,
        *,
        token: str = "",
        source: TokenSource | None = None,
        wishes: SubscriptionSettings | None = None,
    ) -> tuple[Membership, Notes]:
        notes = Notes()
        membership = Membership(channel, notes, wishes=wishes, token=token, source=source, codec=ClientJSONCodec())
        self.session.join(membership, now_s=self.now_s)
        return membership, notes

    def subscribed(self, channel: str, **reply: Any) -> tuple[Membership, Notes]:
        """Join and be confirmed."""
        membership, notes = self.join(channel)
        self.answer("subscribe", reply)
        return membership, notes

    def ask(self, command: Command, *, what: str = "publish", channel: str = "news") -> Request:
        """Send a user's command; what comes of it is in `outcomes`."""
        request = Request(what, command, self.outcomes.append, channel=channel)
        self.session.request(request, now_s=self.now_s)
        return request

    def lose(self, ending: Ending) -> Fate:
        return self.session.lost(ending)
