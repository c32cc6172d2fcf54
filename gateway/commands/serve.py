"""`gateway serve`: run a node."""

import argparse
import asyncio
import secrets
from functools import partial
from typing import Any, Final

from gateway import __version__
from gateway.commands.options import add_config, load_config, telling
from gateway.commands.token import make_token
from gateway.config import Config, development
from gateway.node import Node, address_text, run_until_signalled
from gateway.observability.logs import forward_library_logs, make_logger
from gateway.runtime import default_name
from gateway.transport.listener import raise_descriptor_limit

_DEVELOPMENT_TOKEN_TTL_S: Final = 86400


def add_arguments(serve: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add_config(serve)
    serve.add_argument("--host", help="public address (http_server.address)")
    serve.add_argument("--port", type=int, help="public port (http_server.port)")
    serve.add_argument("--internal-port", type=int, help="internal port (http_server.internal_port)")
    serve.add_argument("--dev", action="store_true", help="development: loopback, open to all, with a playground")
    serve.set_defaults(run=telling(_serve))


def _serve(options: argparse.Namespace) -> int:
    named = {
        "http_server.address": options.host,
        "http_server.port": options.port,
        "http_server.internal_port": options.internal_port,
    }
    flags = {key: value for key, value in named.items() if value is not None}
    base: dict[str, Any] = {}
    if options.dev:
        base = development()
        base["client"]["token"] = {"hmac_secret_key": secrets.token_urlsafe(32)}
        base["http_api"] = {"key": secrets.token_urlsafe(24)}
    config = load_config(options, flags, base)
    log = make_logger(config.log, node=config.node.name or default_name())
    forward_library_logs(log)
    # Environment and flags stay what they are, so without a file there is nothing to read again.
    read_again = partial(load_config, options, flags, base) if options.config else None
    # The greeting needs the ports as bound, so the node is built first; it listens from then on.
    node = Node(config, log, read_config=read_again)
    log.info("file descriptors", limit=raise_descriptor_limit())
    if options.dev:
        print(_greeting(config, node), flush=True)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(run_until_signalled(node))
    return 0


def _loop_factory() -> Any:
    """Return uvloop's loop where there is one: half the CPU of asyncio's own for a delivery."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop


def _greeting(config: Config, node: Node) -> str:
    base, internal = address_text(node.public_address), address_text(node.internal_address)
    secure = "s" if config.http_server.tls.enabled else ""
    page, socket = f"http{secure}://{base}", f"ws{secure}://{base}"
    token = make_token(config, user="alice", channel=None, ttl_s=_DEVELOPMENT_TOKEN_TTL_S, info=None)
    return f"""
gateway {__version__} in development mode: open to everybody, on this machine only

  playground   {page}/
  clients      {socket}/connection/websocket   (any Centrifugo SDK)
  plain        {socket}/ws/<channel>           (any WebSocket)
  health       http://{internal}/readyz   /livez   /metrics
  admin        http://{internal}/admin   and the server API, with the key {config.http_api.key}

  token of the user "alice", good for a day:
  {token}

Three things to try:
  1. Open {page}/ in two browser windows and chat.
  2. .venv/bin/websockets {socket}/ws/echo:me           and type: hello
  3. .venv/bin/websockets {socket}/ws/lobby:chat        and type: {{"text": "hi"}}

Ctrl-C stops it.
"""
