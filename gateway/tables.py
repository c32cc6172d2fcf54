"""Tables of the configuration that are made of what several parts want, or belong to no part alone."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gateway.auth.tokens import TokenSettings
from gateway.domain.channels import ChannelSettings
from gateway.domain.session import SessionSettings
from gateway.messaging.cluster import ClusterSettings
from gateway.messaging.intake import IntakeSettings
from gateway.messaging.uni import UniDisconnectSettings
from gateway.proxies.settings import ChannelProxySettings, ClientProxySettings
from gateway.settings import Settings, one_of
from gateway.transport.admission import AdmissionSettings


class NodeSettings(ClusterSettings):
    """`node`: this process, and how it deals with the others."""

    name: str = ""
    """How logs and metrics call the node; empty: host name and process id."""


class PersonalChannelSettings(Settings):
    """`client.subscribe_to_user_personal_channel`: a channel for each user, joined at connect."""

    enabled: bool = False
    """Subscribe each authenticated client to its user's channel, `#<user>`."""
    personal_channel_namespace: str = ""
    """The namespace of that channel: `<namespace>:#<user>`."""
    single_connection: bool = False
    """Let a user have one connection in the whole cluster: a new one ends those before it (disconnect 3504)."""


class SubscriptionTokenSettings(TokenSettings):
    """`client.subscription_token`: keys of their own for subscription tokens."""

    enabled: bool = False
    """Use this table; else `client.token` serves subscription tokens too."""


class ChannelTableSettings(ChannelSettings):
    """`channel`: names, namespaces, and what the backend is asked about channels."""

    proxy: ChannelProxySettings = ChannelProxySettings()


class ClientSettings(SessionSettings, AdmissionSettings):
    """`client`: who may connect, and what a connection may do."""

    insecure: bool = False
    """Development only: connect without a token and pass every permission check. `$` channels still need a token."""
    insecure_skip_token_signature_verify: bool = False
    """Development only: read tokens without checking who signed them."""
    allow_anonymous_connect_without_token: bool = False
    """Let clients connect without a token, as the user `""`."""
    disallow_anonymous_connection_tokens: bool = False
    """Refuse connection tokens without a user (disconnect 3507)."""
    connect_include_server_time: bool = False
    """Put `time`, in Unix milliseconds, into connect replies."""
    token: TokenSettings = TokenSettings()
    """Keys of connection tokens."""
    subscription_token: SubscriptionTokenSettings = SubscriptionTokenSettings()
    """Keys of subscription tokens, if they differ."""
    subscribe_to_user_personal_channel: PersonalChannelSettings = PersonalChannelSettings()
    """Personal channels."""
    proxy: ClientProxySettings = ClientProxySettings()
    connect_code_to_unidirectional_disconnect: UniDisconnectSettings = UniDisconnectSettings()
    """What unidirectional clients are told instead of an error."""


class BrokerType(StrEnum):
    """What carries publications between nodes."""

    MEMORY = "memory"
    REDIS = "redis"


class BrokerSettings(IntakeSettings):
    """`broker`: what carries publications."""

    type: Annotated[BrokerType, one_of(BrokerType)] = BrokerType.MEMORY
    """`memory`: embedded, one node; `redis`: any number of nodes that share a server (table `redis`)."""


class JSONSettings(Settings):
    """`json`: limits on what clients send as JSON."""

    max_depth: Annotated[int, Field(ge=1, le=500)] = 128
    """Deepest nesting of arrays and objects that is read (disconnect 3501, error 107)."""


class EndpointSettings(Settings):
    """A small HTTP endpoint that can be switched on."""

    enabled: bool = False
    """Serve it."""
