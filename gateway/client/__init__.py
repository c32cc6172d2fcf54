"""The Python client: `Client`, `Pool` and `PlainClient`. It needs msgspec and websockets and nothing else."""

from gateway.client.backoff import Backoff, Jitter
from gateway.client.client import ChannelTokenSource, Client
from gateway.client.errors import (
    ClientError,
    ClosedError,
    DisconnectedError,
    InvalidArgumentError,
    PoolTimeoutError,
    PublishRejectedError,
    QueueFullError,
    RejectedError,
    ReplyTimeoutError,
    SlowConsumerError,
    SubscribeRejectedError,
    UnansweredError,
    UnauthorizedError,
    UnsubscribedError,
)
from gateway.client.events import (
    ClientEvent,
    Connected,
    Disconnected,
    Dropped,
    Joined,
    Left,
    MessageReceived,
    Published,
    Reconnecting,
    Resubscribing,
    State,
    Subscribed,
    SubscriptionEvent,
    SubscriptionState,
    Unsubscribed,
)
from gateway.client.plain import PlainClient
from gateway.client.plain_session import Gap, PlainEvent, PlainMessage, PlainSettings, Refused
from gateway.client.pool import Pool
from gateway.client.roster import PoolSettings, PoolStatistics
from gateway.client.settings import ClientSettings, Overflow, SubscriptionSettings, TokenSource
from gateway.client.subscription import Subscription
from gateway.protocol.client_codec import ReceivedPublication as Publication
from gateway.protocol.client_protobuf_codec import ClientProtobufCodec as ProtobufCodec
from gateway.protocol.messages import StreamPosition

__all__ = [
    "Backoff",
    "ChannelTokenSource",
    "Client",
    "ClientError",
    "ClientEvent",
    "ClientSettings",
    "ClosedError",
    "Connected",
    "Disconnected",
    "DisconnectedError",
    "Dropped",
    "Gap",
    "InvalidArgumentError",
    "Jitter",
    "Joined",
    "Left",
    "MessageReceived",
    "Overflow",
    "PlainClient",
    "PlainEvent",
    "PlainMessage",
    "PlainSettings",
    "Pool",
    "PoolSettings",
    "PoolStatistics",
    "PoolTimeoutError",
    "ProtobufCodec",
    "Publication",
    "PublishRejectedError",
    "Published",
    "QueueFullError",
    "Reconnecting",
    "Refused",
    "RejectedError",
    "ReplyTimeoutError",
    "Resubscribing",
    "SlowConsumerError",
    "State",
    "StreamPosition",
    "SubscribeRejectedError",
    "Subscribed",
    "Subscription",
    "SubscriptionEvent",
    "SubscriptionSettings",
    "SubscriptionState",
    "TokenSource",
    "UnansweredError",
    "UnauthorizedError",
    "Unsubscribed",
    "UnsubscribedError",
]
