"""The server API's calls in the gateway's own values, and its own values in the API's results (protocol.md 7)."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from gateway.broker.contract import BrokerError
from gateway.messaging.control import NodeInfo
from gateway.messaging.publishing import Extras
from gateway.messaging.trends import Point
from gateway.protocol import codes, server_api
from gateway.protocol.closing import closing_with
from gateway.protocol.codes import Disconnect
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import MAX_VERSION, NOTHING, Publication, payload
from gateway.protocol.server_api import BroadcastCall, DisconnectReason, PublishCall, Refusal
from gateway.protocol.server_results import NodeMetrics, NodeResult, SilentNode, StoredPublication


class Content(NamedTuple):
    """What is to be published, and how."""

    data: msgspec.Raw
    extras: Extras | None
    is_checked: bool
    """Whether it came out of valid JSON."""


def bad(reason: str) -> Refusal:
    """Return error 107, for *reason*."""
    return Refusal(server_api.BAD_REQUEST, reason)


def failed(error: BrokerError) -> Refusal:
    """Return error 100: the broker could not do it."""
    return Refusal(server_api.INTERNAL_ERROR, str(error))


def content_of(call: PublishCall | BroadcastCall) -> Content | Refusal:
    """Return what is to be published, and how."""
    if call.version > MAX_VERSION:
        return bad(f"version is above {MAX_VERSION}")
    extras = None
    if call.idempotency_key or call.version or call.tags or call.skip_history:
        extras = Extras(
            call.idempotency_key,
            call.version,
            call.version_epoch,
            call.tags or {},
            skips_history=call.skip_history,
            is_patchable=call.delta,
        )
    if not call.b64data:
        return Content(call.data, extras, is_checked=True)
    data = _unpacked(call.b64data)
    return bad("b64data is not base64") if data is None else Content(payload(data), extras, is_checked=False)


def _unpacked(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def told(name: str, data: msgspec.Raw, encoded: str) -> bytes | Refusal:
    """Return what goes to clients beside a publication: JSON, which all of them can read."""
    if not encoded:
        return bytes(data)
    unpacked = _unpacked(encoded)
    if unpacked is None or not is_json(unpacked):
        return bad(f"b64{name} is not JSON in base64")
    return unpacked


def disconnect_of(asked: DisconnectReason | None) -> Disconnect | Refusal:
    """Return what clients are told; the reason is never empty and never JSON (protocol.md 1.2)."""
    if asked is None:
        return codes.FORCE_DISCONNECT
    try:
        return closing_with(asked.code, asked.reason)
    except ValueError as error:
        return bad(str(error))


def stored(publication: Publication, *, is_json_known: bool) -> StoredPublication:
    """Return a publication of a stream as the API tells it, in base64 unless it is JSON."""
    data, encoded = publication.data, ""
    if not is_json_known and not is_json(bytes(data)):
        data, encoded = NOTHING, base64.b64encode(bytes(data)).decode()
    return StoredPublication(data, encoded, publication.info, publication.offset, publication.tags)


def described(node: NodeInfo, points: Sequence[Point]) -> NodeResult:
    """Return a node as the API tells it, with the latest of the *points* of its trend."""
    return NodeResult(
        uid=node.uid,
        name=node.name,
        version=node.version,
        num_clients=node.num_clients,
        num_users=node.num_users,
        num_subs=node.num_subs,
        num_channels=node.num_channels,
        uptime=int(node.uptime_s),
        metrics=_metrics(points[-1]) if points else None,
    )


def _metrics(point: Point) -> NodeMetrics:
    items = msgspec.structs.asdict(point)
    for name in ("number", "at_s", "clients"):
        del items[name]
    return NodeMetrics(interval=1.0, items={name: round(value, 6) for name, value in items.items()})


def named(nodes: Iterable[NodeInfo]) -> list[SilentNode]:
    """Return nodes that have not answered, by uid and name."""
    return [SilentNode(node.uid, node.name) for node in nodes]
