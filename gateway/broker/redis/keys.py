"""How keys and channels are called in Redis.

Everything of one channel carries the same hash tag, `{<bucket>}`: one of 256 numbers, from a hash of the channel. So a
script may touch all of it in a cluster, too, and no text of a channel is ever taken for a tag: Redis reads the first
`{…}` of a key, and that is ours.

    <prefix>:{<bucket>}:<channel>              pub/sub channel
    <prefix>:{<bucket>}:s:<channel>            stream of its publications
    <prefix>:{<bucket>}:m:<channel>            meta of the stream: epoch, top, version
    <prefix>:{<bucket>}:w:<channel>            window that statistics are made over: the last numbers
    <prefix>:{<bucket>}:i:<length>:<channel>:<key>   result of a publish with an idempotency key
    <prefix>:{<bucket>}:p:<channel>            presence: client -> expiry
    <prefix>:{<bucket>}:c:<channel>            presence: client -> info
    <prefix>:{<bucket>}:u:<channel>            presence: user -> number of clients
    <prefix>:control, <prefix>:control:<node id>   pub/sub channels from node to node
"""

import functools
import zlib
from typing import Final

BUCKETS: Final = 256
_REMEMBERED: Final = 16384


class ChannelKeys:
    """The names of one channel, as bytes."""

    __slots__ = ("_head", "_text", "clients", "meta", "name", "presence", "publish_head", "stream", "users", "window")

    def __init__(self, prefix: bytes, channel: str) -> None:
        # Lone surrogates are no UTF-8, yet a broker takes any text.
        text = self._text = channel.encode("utf-8", "surrogatepass")
        head = self._head = b"%b:{%d}:" % (prefix, zlib.crc32(text) % BUCKETS)
        self.name = head + text
        self.stream = head + b"s:" + text
        self.meta = head + b"m:" + text
        self.window = head + b"w:" + text
        self.presence = head + b"p:" + text
        self.clients = head + b"c:" + text
        self.users = head + b"u:" + text
        self.publish_head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$" % (len(self.name), self.name)

    def result(self, idempotency_key: str) -> bytes:
        """Return where the result of a publish with *idempotency_key* is kept."""
        # The length tells where the channel ends, so that ("a:b", "c") and ("a", "b:c") differ.
        key = idempotency_key.encode("utf-8", "surrogatepass")
        return b"%bi:%d:%b:%b" % (self._head, len(self._text), self._text, key)

    def pack_publish(self, kind: bytes, body: bytes) -> bytes:
        """Return the PUBLISH of *kind* and *body*, packed."""
        # By hand, with all but the body prepared: less than half the time of hiredis' packing.
        return b"%b%d\r\n%b%b\r\n" % (self.publish_head, len(kind) + len(body), kind, body)


class Keys:
    """Names everything of one gateway; what shares a prefix shares channels."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.control = f"{prefix}:control".encode()
        """What every node listens to."""
        self._prefix = prefix.encode()
        self.of = functools.lru_cache(maxsize=_REMEMBERED)(functools.partial(ChannelKeys, self._prefix))
        """Return the names of a channel; the busy ones are remembered."""

    def control_of(self, node_id: str) -> bytes:
        """Return what one node alone listens to."""
        return self.control + b":" + node_id.encode()

    def channel_of(self, name: bytes) -> str | None:
        """Return the channel that the pub/sub channel *name* carries; `None` if it is none of ours."""
        head, separator, text = name[len(self._prefix) :].partition(b"}:")
        if not (separator and name.startswith(self._prefix) and head.startswith(b":{")):
            return None
        return text.decode("utf-8", "surrogatepass")
