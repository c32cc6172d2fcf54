"""Asking the user's backend about what a client wants (protocol.md 8).

All these wait for the backend, so the client may have gone when they return; and they raise `ProxyError` when it says
nothing that could be used.
"""

import base64
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from gateway.domain.channels import Channel
from gateway.domain.counts import Asked
from gateway.domain.identity import Grant
from gateway.domain.session import Subscription
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.json_codec import is_json, on_one_line
from gateway.protocol.messages import NOTHING, ConnectRequest, RPCRequest
from gateway.protocol.variants import ProtocolVariant
from gateway.proxies.answers import ConnectVerdict, PublishVerdict, RefreshVerdict
from gateway.proxies.events import ConnectEvent, PublishEvent, RefreshEvent, RPCEvent, SubRefreshEvent, SubscribeEvent
from gateway.proxies.proxy import Proxy, ProxyError

if TYPE_CHECKING:
    from gateway.messaging.conversation import Conversation

_PLAIN: Final = "plain"

VerdictT = TypeVar("VerdictT")


async def ask_connect(
    client: "Conversation", proxy: Proxy[ConnectVerdict], request: ConnectRequest
) -> ConnectVerdict | ErrorCode | Disconnect:
    """Ask who *client* is, which is nobody if the backend does not say."""
    payload = _payload(client, proxy, request.data)
    if payload is None:
        return codes.BAD_REQUEST
    named: dict[str, Any] = {"name": request.name, "version": request.version, "channels": list(request.subs)}
    answer = await proxy.ask(ConnectEvent(**_common(client, proxy), **payload, **named), client.headers)
    if not isinstance(answer, ConnectVerdict):
        return codes.PROTOCOL_VIOLATED if answer is None else answer
    return ConnectVerdict(answer.identity, _told(client, proxy, answer.data))


async def ask_refresh(
    client: "Conversation", proxy: Proxy[RefreshVerdict]
) -> RefreshVerdict | ErrorCode | Disconnect | None:
    """Ask whether the connection may go on."""
    return await proxy.ask(RefreshEvent(**_common(client, proxy), **_whose(client, proxy)), client.headers)


async def ask_subscribe(client: "Conversation", channel: Channel, data: msgspec.Raw) -> Grant | ErrorCode | Disconnect:
    """Ask whether *client* may subscribe to *channel*, and with what; *data* is what it has to say for itself."""
    proxy = client.services.proxies.subscribe(channel.options)
    payload = _payload(client, proxy, data)
    if payload is None:
        return codes.BAD_REQUEST
    event = SubscribeEvent(**_common(client, proxy), **_whose(client, proxy), **payload, channel=channel.name)
    answer = _needed(await proxy.ask(event, client.headers))
    if not isinstance(answer, Grant):
        return answer
    return msgspec.structs.replace(answer, channel=channel.name, data=_told(client, proxy, answer.data))


async def ask_publish(
    client: "Conversation", channel: Channel, data: bytes | msgspec.Raw
) -> PublishVerdict | ErrorCode | Disconnect:
    """Ask whether *client* may publish *data* in *channel*, and how."""
    proxy = client.services.proxies.publish(channel.options)
    payload = _payload(client, proxy, data)
    if payload is None:
        return codes.BAD_REQUEST
    event = PublishEvent(**_common(client, proxy), **_whose(client, proxy), **payload, channel=channel.name)
    return _needed(await proxy.ask(event, client.headers))


async def ask_sub_refresh(
    client: "Conversation", proxy: Proxy[RefreshVerdict], subscription: Subscription
) -> RefreshVerdict | ErrorCode | Disconnect | None:
    """Ask whether *subscription* may go on."""
    channel = subscription.channel.name
    event = SubRefreshEvent(**_common(client, proxy), **_whose(client, proxy), channel=channel)
    return await proxy.ask(event, client.headers)


async def ask_rpc(
    client: "Conversation", proxy: Proxy[msgspec.Raw], request: RPCRequest
) -> msgspec.Raw | ErrorCode | Disconnect:
    """Have the backend answer *request*."""
    payload = _payload(client, proxy, request.data)
    if payload is None:
        return codes.BAD_REQUEST
    event = RPCEvent(**_common(client, proxy), **_whose(client, proxy), **payload, method=request.method)
    answer = _needed(await proxy.ask(event, client.headers))
    return answer if isinstance(answer, ErrorCode | Disconnect) else _told(client, proxy, answer)


def tellable(client: "Conversation", data: msgspec.Raw) -> msgspec.Raw | None:
    """Return what *client* alone is told, as its encoding can carry it; `None` if it can't."""
    if data is NOTHING or not client.variant.needs_json:
        return data
    text = bytes(data)
    return msgspec.Raw(on_one_line(text)) if is_json(text) else None


def _told(client: "Conversation", proxy: Proxy[Any], data: msgspec.Raw) -> msgspec.Raw:
    told = tellable(client, data)
    if told is None:
        reason = "its data is no JSON, and the client can read nothing else"
        client.services.log.warning("proxy failed", proxy=proxy.name, reason=reason, client=client.session.client_id)
        raise ProxyError(Asked.UNUSABLE, reason)
    return told


def _common(client: "Conversation", proxy: Proxy[Any]) -> dict[str, Any]:
    variant = client.variant
    return {
        "client": client.session.client_id,
        "transport": variant.transport,
        "protocol": variant.codec.name if isinstance(variant, ProtocolVariant) else _PLAIN,
        "encoding": "binary" if proxy.settings.binary_encoding else "json",
    }


def _whose(client: "Conversation", proxy: Proxy[Any]) -> dict[str, Any]:
    meta = client.session.meta if proxy.settings.include_connection_meta else NOTHING
    return {"user": client.session.user, "meta": meta}


def _payload(client: "Conversation", proxy: Proxy[Any], data: bytes | msgspec.Raw) -> dict[str, Any] | None:
    """Return *data* as a field of the event; `None` if it is no JSON and the event can carry nothing else."""
    content = bytes(data)
    if not content:
        return {}
    if proxy.settings.binary_encoding:
        return {"b64data": base64.b64encode(content).decode()}
    return {"data": msgspec.Raw(content)} if client.variant.needs_json or is_json(content) else None


def _needed(answer: VerdictT | ErrorCode | Disconnect | None) -> VerdictT | ErrorCode | Disconnect:
    if answer is None:
        raise AssertionError("an answer without a verdict was to be found unusable")
    return answer
