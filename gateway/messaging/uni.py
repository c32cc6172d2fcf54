"""Clients that only listen (protocol.md 1.6): they connect, by token or not, and all else is done for them."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from gateway.domain.session import State
from gateway.messaging.commands import ClientConversation
from gateway.messaging.methods import Answer
from gateway.messaging.port import Terms
from gateway.protocol import codes
from gateway.protocol.closing import MAX_REASON_BYTES, is_tellable
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.settings import Settings

LISTENING: Final = Terms(expects_pongs=False, has_session_id=True, tells_end=True)
"""Those of a stream that nothing comes back from."""
LISTENING_ON_WEBSOCKET: Final = Terms(has_session_id=True, tells_end=True)
_DISCONNECTS: Final[Mapping[int, Disconnect]] = {
    codes.PERMISSION_DENIED.code: codes.ANONYMOUS_REFUSED,
    codes.TOKEN_EXPIRED.code: codes.CONNECTION_EXPIRED,
    codes.EXPIRED.code: codes.CONNECTION_EXPIRED,
    codes.TOO_MANY_REQUESTS.code: codes.RATE_EXCEEDED,
}
"""What errors become of which there is more to say than that the server could not."""


def _is_told(reason: str) -> str:
    if not is_tellable(reason):
        raise ValueError(f"a reason is a text of at most {MAX_REASON_BYTES} bytes, and nothing that is JSON")
    return reason


class DisconnectSettings(Settings):
    """A code and its reason."""

    code: Annotated[int, Field(ge=3000, le=4999)]
    """Clients come back on 3000 to 3499 and 4000 to 4499."""
    reason: Annotated[str, Field(min_length=1), AfterValidator(_is_told)]
    """A few words for who reads them."""


class TransformSettings(Settings):
    """What one error becomes."""

    code: Annotated[int, Field(ge=0, le=1999)]
    """The error's code."""
    to: DisconnectSettings
    """What clients are told instead."""


class UniDisconnectSettings(Settings):
    """`client.connect_code_to_unidirectional_disconnect`: what unidirectional clients are told who may not connect."""

    enabled: bool = False
    """Use `transforms`; what is not among them is told as always: 103 as 3507, 109 and 110 as 3005, 111 as 3013, every
    other error as 3004."""
    transforms: list[TransformSettings] = Field(default=[])
    """Pairs of an error's code and a disconnect: `{code = 103, to = {code = 4903, reason = "not yours"}}`."""

    def table(self) -> Mapping[int, Disconnect]:
        """Return disconnects by the code of the error."""
        changed = {each.code: Disconnect(each.to.code, each.to.reason) for each in self.transforms}
        return {**_DISCONNECTS, **changed} if self.enabled else _DISCONNECTS


class UniConversation(ClientConversation):
    """A client that says how it connects, and from then on only listens; its variant has the codec of such clients."""

    __slots__ = ()

    def receive(self, payload: bytes, *, is_text: bool = True) -> None:
        """Take the connect request; what comes after it is nobody's."""
        if self.session.state is State.OPENED:
            super().receive(payload, is_text=is_text)
        else:
            self.note_received(len(payload))

    def frame_pong(self) -> None:
        """Take a pong of the transport's own, which is all that such a client may say; it may say it unasked."""
        self.note_pong()

    def _ping(self) -> None:
        """Send both a push and a ping of the transport's own, if it has such a thing: nobody answers the push."""
        super()._ping()
        if not self.has_gone():
            self.transport.ping()

    def _answer(self, command_id: int, method: str, answer: Answer) -> None:
        if isinstance(answer, ErrorCode):
            self.services.counts.errors[method, answer.code] += 1
            answer = self.services.uni_disconnects.get(answer.code, codes.SERVER_ERROR)
        super()._answer(command_id, method, answer)
