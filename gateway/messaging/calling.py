"""rpc: a handler called by its name (protocol.md 3.5)."""

from gateway.messaging.conversation import Conversation
from gateway.messaging.handlers import PING, Request
from gateway.protocol import codes
from gateway.protocol.codes import ErrorCode
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import RPCRequest, RPCResult, payload


def rpc_at_once(client: Conversation, request: RPCRequest) -> RPCResult | ErrorCode | None:
    """Answer what needs no handler; `None` if one has to be called."""
    if request.method == PING:
        return RPCResult()
    handlers = client.services.handlers
    if handlers.has_method(request.method):
        return None
    return codes.METHOD_NOT_FOUND if handlers.has_methods else codes.NOT_AVAILABLE


async def rpc(client: Conversation, request: RPCRequest) -> RPCResult | ErrorCode | None:
    """Answer with what the method's handler does; `None` if the client has gone meanwhile."""
    services, method = client.services, request.method
    question = Request("", client.session.user, client.session.client_id, _text_or_bytes(bytes(request.data)))
    answer = await services.handlers.call(method, question)
    if client.has_gone():
        return None
    if answer is None or isinstance(answer, ErrorCode):
        return RPCResult() if answer is None else answer
    if client.variant.needs_json and not is_json(answer.data):
        services.log.error("rpc answer is no JSON", handler=method, client=client.session.client_id)
        return codes.INTERNAL_ERROR
    return RPCResult(payload(answer.data))


def _text_or_bytes(data: bytes) -> str | bytes:
    """Return *data* as text if it is text: Protobuf carries anything."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
