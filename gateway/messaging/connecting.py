"""connect and refresh: who a client is, and until when (protocol.md 3.1, 3.3, 3.7, 5.2)."""

from gateway.auth.tokens import KEYS_UNAVAILABLE, TokenRefusedError
from gateway.domain.channels import Channel
from gateway.domain.identity import Grant, Identity
from gateway.domain.permissions import refuse_subscribe
from gateway.domain.session import ttl
from gateway.messaging.asking import ask_connect
from gateway.messaging.conversation import Conversation
from gateway.messaging.joining import Joining, Room, join_all
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import (
    ConnectRequest,
    ConnectResult,
    RefreshRequest,
    RefreshResult,
    SubscribeRequest,
    SubscribeResult,
)
from gateway.proxies.answers import ConnectVerdict
from gateway.proxies.proxy import Proxy


async def connect(client: Conversation, request: ConnectRequest) -> ConnectResult | ErrorCode | Disconnect | None:
    """Authenticate *client* and make its server-side subscriptions; `None` if it has gone meanwhile.

    Raises:
        TokenRefusedError: with what the client gets.
        ProxyError: the backend was to say who it is, and says nothing that could be used.
        BrokerError: a server-side subscription could not be made; none is left behind.
    """
    services, session = client.services, client.session
    client.headers = services.proxies.kept_of_command(request.headers, client.headers)
    verdict = await _authenticate(client, request)
    if not isinstance(verdict, ConnectVerdict):
        return verdict
    identity = verdict.identity
    # Filed before anything is awaited, so that a user's connections that come together are all counted.
    if client.has_gone() or not client.admit(identity):
        return None
    wanted = _server_side(client, request, identity)
    if not isinstance(wanted, list):
        return wanted
    unix_s = services.unix()
    session.is_refreshed_by_server = services.proxies.refresh is not None
    session.identify(identity, now_s=services.monotonic(), unix_s=unix_s)
    joinings = [_join(client, request, channel, grant) for channel, grant in wanted]
    if not await join_all(client, joinings):
        return None
    unix_s = services.unix()
    session.accept(identity, now_s=services.monotonic(), unix_s=unix_s, random=services.random())
    session.granted = frozenset(grant.channel for grant in _grants(client, identity))
    client.watch()
    client.note_authenticated(name=request.name, version=request.version)
    if services.disconnect_others is not None and session.user:
        services.disconnect_others(session.user, client.age_rank)
    room = Room(client.room())
    subs = {joining.channel.name: _begin(joining, room) for joining in joinings}
    if not all(client.can_tell(joining.channel, subs[joining.channel.name].publications) for joining in joinings):
        return codes.INAPPROPRIATE_PROTOCOL
    expires_at_s = 0 if session.is_refreshed_by_server else identity.expires_at_s
    settings, pings = services.session, not client.terms.uses_transport_pings
    return ConnectResult(
        client=session.client_id,
        version=services.version,
        expires=bool(expires_at_s),
        ttl=ttl(expires_at_s, unix_s=unix_s),
        data=verdict.data,
        subs=subs,
        ping=max(round(settings.ping_interval_s), 1) if pings else 0,
        pong=bool(settings.pong_timeout_s) and pings,
        session=session.session_id,
        node=services.node_id if session.session_id else "",
        time=int(unix_s * 1000) if services.includes_server_time else 0,
    )


def _join(client: Conversation, request: ConnectRequest, channel: Channel, grant: Grant) -> Joining:
    asked = request.subs.get(channel.name, SubscribeRequest())
    asked.flag = 0  # a server-side subscription is not the client's to reject
    return Joining(client, channel, asked, grant, is_server_side=True)


def _begin(joining: Joining, room: Room) -> SubscribeResult:
    """Let a server-side subscription begin, with what it missed since the position that the client told."""
    result = joining.result(room)
    if result is None:
        raise AssertionError("only a client that rejects it gets an error")
    joining.enter(result)
    return result


async def refresh(client: Conversation, request: RefreshRequest) -> RefreshResult | ErrorCode | Disconnect | None:
    """Prolong the connection by a new token; everything but a fitting token ends it (3.7)."""
    services, session = client.services, client.session
    if not request.token or session.is_refreshed_by_server:
        return codes.PROTOCOL_VIOLATED
    unix_s = services.unix()
    try:
        identity = await services.connection_tokens.connection(request.token, unix_s=unix_s)
    except TokenRefusedError as refusal:
        client.note_token_failure(refusal)
        if refusal.cause == KEYS_UNAVAILABLE:
            return codes.INTERNAL_ERROR  # temporary: the client tries again, and its connection lives on
        return codes.CONNECTION_EXPIRED if refusal.has_expired else codes.INVALID_TOKEN
    if client.has_gone():
        return None
    if identity.user != session.user:
        return codes.INVALID_TOKEN
    if {grant.channel for grant in _grants(client, identity)} != session.granted:
        return codes.INSUFFICIENT_STATE
    identity = identity.without_expiry() if services.is_insecure else identity
    session.identify(identity, now_s=services.monotonic(), unix_s=unix_s)
    client.watch()
    return RefreshResult(expires=bool(identity.expires_at_s), ttl=ttl(identity.expires_at_s, unix_s=unix_s))


async def _authenticate(client: Conversation, request: ConnectRequest) -> ConnectVerdict | ErrorCode | Disconnect:
    """Find out who it is (3.1, 3)."""
    services = client.services
    if not request.token and services.proxies.connect is not None:
        return await _asked(client, services.proxies.connect, request)
    if not request.token:
        may_pass = services.is_insecure or services.is_anonymous_allowed
        return ConnectVerdict(Identity()) if may_pass else codes.PROTOCOL_VIOLATED
    identity = await services.connection_tokens.connection(request.token, unix_s=services.unix())
    if not identity.user and services.refuses_anonymous_tokens:
        return codes.ANONYMOUS_REFUSED
    return ConnectVerdict(identity.without_expiry() if services.is_insecure else identity)


async def _asked(
    client: Conversation, proxy: Proxy[ConnectVerdict], request: ConnectRequest
) -> ConnectVerdict | ErrorCode | Disconnect:
    """Have the backend say who it is."""
    verdict = await ask_connect(client, proxy, request)
    if not isinstance(verdict, ConnectVerdict):
        return verdict
    identity, unix_s = verdict.identity, client.services.unix()
    ends = [identity.expires_at_s, *(grant.expires_at_s for grant in identity.grants)]
    return codes.EXPIRED if any(0 < end <= unix_s for end in ends) else verdict


def _server_side(
    client: Conversation, request: ConnectRequest, identity: Identity
) -> list[tuple[Channel, Grant]] | ErrorCode | Disconnect:
    """Decide the server-side subscriptions (3.3): what credentials give, and what the client may recover."""
    services = client.services
    wanted: dict[str, tuple[Channel, Grant]] = {}
    for grant in _grants(client, identity):
        channel = services.channels.resolve(grant.channel)
        if isinstance(channel, ErrorCode):
            return channel
        if not channel.name:
            return codes.BAD_REQUEST
        if not client.can_carry(channel):
            return codes.NOT_AVAILABLE
        wanted[channel.name] = channel, grant
    for name in request.subs:
        channel = services.channels.resolve(name)
        if isinstance(channel, ErrorCode) or not name:
            return codes.PROTOCOL_VIOLATED
        refusal = refuse_subscribe(channel, identity.user, is_insecure=services.is_insecure)
        if name not in wanted and refusal is None and channel.is_well_formed and client.can_carry(channel):
            wanted[name] = channel, Grant(name)
    if len(wanted) > services.session.channel_limit:
        services.counts.limit_hits["channel_limit"] += 1
        return codes.CHANNEL_LIMIT
    return list(wanted.values())


def _grants(client: Conversation, identity: Identity) -> list[Grant]:
    """Return the channels that credentials give *identity*, its personal one included."""
    services = client.services
    grants = list(identity.grants)
    if services.personal_namespace is not None and identity.user:
        grants.append(Grant(services.channels.personal_channel(identity.user, namespace=services.personal_namespace)))
    return grants
