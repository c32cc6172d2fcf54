"""rpc: a handler called by its name, or the user's backend (protocol.md 3.5, 8)."""

import msgspec

from gateway.messaging.asking import ask_rpc, tellable
from gateway.messaging.conversation import Conversation
from gateway.messaging.handlers import PING, Request
from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode
from gateway.protocol.messages import RPCRequest, RPCResult, payload


def rpc_at_once(client: Conversation, request: RPCRequest) -> RPCResult | ErrorCode | None:
    """Answer what nobody has to be asked; `None` if somebody has to be."""
    if request.method == PING:
        return RPCResult()
    handlers, proxies = client.services.handlers, client.services.proxies
    if handlers.has_method(request.method) or proxies.rpc(request.method) is not None:
        return None
    return codes.METHOD_NOT_FOUND if handlers.has_methods or proxies.has_rpc else codes.NOT_AVAILABLE


async def rpc(client: Conversation, request: RPCRequest) -> RPCResult | ErrorCode | Disconnect | None:
    """Answer with what the method's handler does, or the backend; `None` if the client has gone meanwhile.

    Raises:
        ProxyError: the backend says nothing that could be used.
    """
    services = client.services
    if services.handlers.has_method(request.method):
        return await _handled(client, request)
    proxy = services.proxies.rpc(request.method)
    if proxy is None:
        return codes.METHOD_NOT_FOUND  # a reload has taken it away
    answer = await ask_rpc(client, proxy, request)
    if client.has_gone():
        return None
    return answer if isinstance(answer, ErrorCode | Disconnect) else RPCResult(answer)


async def _handled(client: Conversation, request: RPCRequest) -> RPCResult | ErrorCode | None:
    services, method = client.services, request.method
    question = Request("", client.session.user, client.session.client_id, _text_or_bytes(bytes(request.data)))
    answer = await services.handlers.call(method, question)
    if client.has_gone():
        return None
    if answer is None or isinstance(answer, ErrorCode):
        return RPCResult() if answer is None else answer
    told = tellable(client, msgspec.Raw(answer.data))
    if told is None:
        services.log.error("rpc answer is no JSON", handler=method, client=client.session.client_id)
        return codes.INTERNAL_ERROR
    return RPCResult(payload(bytes(told)))


def _text_or_bytes(data: bytes) -> str | bytes:
    """Return *data* as text if it is text: Protobuf carries anything."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
