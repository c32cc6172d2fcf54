"""The JSON encoding of clients that only listen (protocol.md 1.6): bare pushes, behind one bare connect request."""

from typing import Final

import msgspec

from gateway.protocol.json_codec import JSONCodec, decode_repairing
from gateway.protocol.messages import Command, ConnectPush, ConnectRequest, Publication, Push, Reply

_REQUEST: Final = msgspec.json.Decoder(ConnectRequest)
_ENCODER: Final = msgspec.json.Encoder()
_WRAP: Final = len(b'{"push":')


class UniCodec(JSONCodec):
    """Pushes that are not wrapped in replies; the one reply that there is, to connect, is a push as well."""

    def decode(self, frame: bytes) -> list[Command]:
        """Read the connect request; nothing at all is one that asks for nothing.

        Raises:
            MalformedFrameError: if it is none.
        """
        if not frame or frame.isspace():
            return [Command(1, connect=ConnectRequest())]
        self.check(frame)
        return [Command(1, connect=decode_repairing(_REQUEST, frame))]

    def reply(self, reply: Reply) -> bytes:
        """Encode the reply to connect."""
        result = reply.connect
        if result is None:
            raise AssertionError("who only listens asks for nothing else")
        connect = ConnectPush(
            client=result.client,
            version=result.version,
            data=result.data,
            subs=result.subs,
            expires=result.expires,
            ttl=result.ttl,
            ping=result.ping,
            session=result.session,
            time=result.time,
        )
        return b'{"connect":%b}' % _ENCODER.encode(connect)

    def push(self, push: Push) -> bytes:
        """Encode one push that is no publication."""
        return super().push(push)[_WRAP:-1]

    def publication(self, channel: str | int, publication: Publication) -> bytes:
        """Encode one publication as a push."""
        return super().publication(channel, publication)[_WRAP:-1]
