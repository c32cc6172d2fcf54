"""What a conversation counts and logs of itself: messages, durations, signs of life, who turns out to be there."""

from gateway.auth.tokens import TokenRefusedError
from gateway.domain.counts import ConnectionTraffic
from gateway.domain.names import UNKNOWN
from gateway.domain.session import Session
from gateway.messaging.port import Terms, Transport
from gateway.messaging.services import Services
from gateway.protocol.codes import Disconnect
from gateway.protocol.variants import Variant


class Counted:
    """A client's session on its transport, and the notes that are taken of it."""

    __slots__ = ("_flow", "called", "services", "session", "terms", "traffic", "transport", "variant")

    def __init__(self, transport: Transport, variant: Variant, services: Services, terms: Terms) -> None:
        self.transport = transport
        self.terms = terms
        self.variant = variant
        self.services = services
        self._flow = services.counts.flow(variant.transport)
        now_s = services.monotonic()
        self.session = Session(
            services.new_id(),
            services.session,
            now_s=now_s,
            session_id=services.new_id() if terms.has_session_id else "",
            expects_pongs=terms.expects_pongs,
        )
        self.traffic = ConnectionTraffic(now_s, opened_at_unix_s=services.unix())
        self.called = UNKNOWN
        """What the client calls itself, as far as that is told apart."""

    def note_received(self, size: int) -> None:
        """Count one message of *size* bytes from the peer."""
        flow, traffic = self._flow, self.traffic
        flow.messages_in += 1
        flow.bytes_in += size
        traffic.messages_in += 1
        traffic.bytes_in += size

    def note_replied(self, size: int, *, messages: int = 1) -> None:
        """Count *size* bytes, of so many *messages*, that this peer alone is told."""
        flow = self._flow
        flow.replies_out += messages
        flow.bytes_out += size
        self.traffic.bytes_out += size

    def note_duration(self, method: str, began_s: float) -> None:
        """Count how long a command took that was taken up at *began_s*."""
        services = self.services
        services.counts.command_durations[method].observe(services.monotonic() - began_s)

    def note_pong(self) -> Disconnect | None:
        """Take a sign of life and note how long it took; one that nobody asked for violates the client protocol."""
        session = self.session
        pinged_at_s = session.pinged_at_s
        violation = session.pong()
        if violation is None:
            taken_s = self.services.monotonic() - pinged_at_s
            self.services.counts.ping_pongs[self.variant.transport].observe(taken_s)
        return violation

    def note_rate_exceeded(self) -> None:
        """Count a command that came too fast."""
        self.services.counts.limit_hits["command_rate"] += 1

    def note_authenticated(self, *, name: str, version: str = "") -> None:
        """Count and log that it is known now who the client is; *name* and *version* are what it calls itself.

        The line repeats what the one of the upgrade has said, since of those a flood of strangers leaves only a few.
        """
        session = self.session
        self.called = self.services.names.of(name, version)
        self.services.counts.authenticated["user" if session.user else "anonymous"] += 1
        self.services.log.info(
            "authenticated",
            client=session.client_id,
            user=session.user,
            name=name,
            transport=self.variant.transport,
            protocol=self.variant.name,
            address=self.transport.peer_address,
        )

    def note_token_failure(self, refusal: TokenRefusedError) -> None:
        """Count and log a token that did not do."""
        self.services.counts.token_failures[refusal.cause] += 1
        self.services.log.info("token refused", client=self.session.client_id, cause=refusal.cause)
