"""The command line: `gateway serve`, `gateway token`, `gateway config`, `gateway doctor`."""

import argparse
import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Never

import jwt

from gateway import __version__, calling, configdoc, terminal
from gateway.auth.tokens import TokenRefusedError, TokenVerifier
from gateway.broker.contract import EngineError
from gateway.config import Config, ConfigError, development, load
from gateway.doctor import command as doctor
from gateway.node import Node, address_text, run_until_signalled
from gateway.observability import metrics
from gateway.observability.logs import forward_library_logs, make_logger
from gateway.runtime import default_name
from gateway.settings import parse_duration
from gateway.transport.certificate import ListenError
from gateway.transport.listener import raise_descriptor_limit

_USAGE_ERROR: Final = 2
_DEVELOPMENT_TOKEN_TTL_S: Final = 86400


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the answer is no, 2 it could not be done as asked."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return _USAGE_ERROR
    except (EngineError, ListenError) as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gateway", description="A WebSocket pub/sub gateway.")
    parser.add_argument("--version", action="version", version=f"gateway {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run a node")
    _add_config(serve)
    serve.add_argument("--host", help="public address (http_server.address)")
    serve.add_argument("--port", type=int, help="public port (http_server.port)")
    serve.add_argument("--internal-port", type=int, help="internal port (http_server.internal_port)")
    serve.add_argument("--dev", action="store_true", help="development: loopback, open to all, with a playground")
    serve.set_defaults(run=_serve)

    terminal.add_commands(commands)
    calling.add_command(commands)

    token = commands.add_parser("token", help="make and check tokens").add_subparsers(required=True, metavar="WHAT")
    create = token.add_parser("create", help="print a token, signed with the configured HMAC secret")
    _add_config(create)
    create.add_argument("--user", required=True, help="the user (claim sub); '' for anonymous")
    create.add_argument("--channel", help="make a subscription token for this channel")
    create.add_argument("--ttl", default="1h", help='lifetime, such as "1h" or 3600; 0: for ever (default: 1h)')
    create.add_argument("--info", help="JSON that others see of the client (claim info)")
    create.set_defaults(run=_create_token)
    check = token.add_parser("check", help="say whether a token is good, and what it holds")
    _add_config(check)
    check.add_argument("token")
    check.set_defaults(run=_check_token)

    config = commands.add_parser("config", help="check and explain the configuration")
    what = config.add_subparsers(required=True, metavar="WHAT")
    check_config = what.add_parser("check", help="say whether the configuration is good")
    _add_config(check_config)
    check_config.set_defaults(run=_check_config)
    what.add_parser("default", help="print the defaults as TOML").set_defaults(run=_print_defaults)
    _add_reference(what, "all keys", configdoc.reference)

    doctor.add_command(commands, add_config=_add_config, load=_load)

    explain = commands.add_parser("metrics", help="explain the metrics").add_subparsers(required=True, metavar="WHAT")
    _add_reference(explain, "all metrics", metrics.reference)
    return parser


def _add_reference(what: Any, subject: str, write: Callable[[], str]) -> None:
    doc = what.add_parser("doc", help=f"print the reference of {subject} as Markdown")
    doc.add_argument("--check", type=Path, metavar="FILE", help="only say whether FILE is that reference")
    doc.set_defaults(run=lambda options: _print_reference(write(), options.check))


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML or JSON file (env: GATEWAY_<TABLE>__<KEY>)")


def _load(
    options: argparse.Namespace, flags: dict[str, Any] | None = None, base: dict[str, Any] | None = None
) -> Config:
    return load(options.config, environment=os.environ, flags=flags, base=base)


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
    config = _load(options, flags, base)
    log = make_logger(config.log, node=config.node.name or default_name())
    forward_library_logs(log)
    # Environment and flags stay what they are, so without a file there is nothing to read again.
    read_again = partial(_load, options, flags, base) if options.config else None
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
    token = _token(config, user="alice", channel=None, ttl_s=_DEVELOPMENT_TOKEN_TTL_S, info=None)
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


def _create_token(options: argparse.Namespace) -> int:
    config = _load(options)
    try:
        ttl_s = float(parse_duration(options.ttl))
        info = json.loads(options.info) if options.info else None
    except ValueError as error:
        _fail(f"--ttl or --info: {error}")
    print(_token(config, user=options.user, channel=options.channel, ttl_s=ttl_s, info=info))
    return 0


def _token(config: Config, *, user: str, channel: str | None, ttl_s: float, info: Any) -> str:
    client = config.client
    settings = client.subscription_token if channel and client.subscription_token.enabled else client.token
    if not settings.hmac_secret_key:
        _fail("client.token.hmac_secret_key is not set: there is nothing to sign a token with")
    now_s = int(time.time())
    claims: dict[str, Any] = {settings.user_id_claim or "sub": user, "iat": now_s}
    optional = {
        "exp": now_s + int(ttl_s) if ttl_s else None,
        "channel": channel,
        "aud": settings.audience or None,
        "iss": settings.issuer or None,
        "info": info,
    }
    claims |= {name: value for name, value in optional.items() if value is not None}
    return jwt.encode(claims, settings.hmac_secret_key, algorithm="HS256")


def _check_token(options: argparse.Namespace) -> int:
    client = _load(options).client
    try:
        claims = jwt.decode(options.token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        print(f"no: not a token ({error})")
        return 1
    channel = claims.get("channel")
    own_keys = channel is not None and client.subscription_token.enabled
    settings = client.subscription_token if own_keys else client.token
    verifier = TokenVerifier(settings)
    unix_s = time.time()
    try:
        if isinstance(channel, str):
            user = str(claims.get(settings.user_id_claim or "sub", ""))
            client_id = str(claims.get("client", ""))
            reading: Any = verifier.subscription(
                options.token, channel=channel, user=user, client=client_id, unix_s=unix_s
            )
        else:
            reading = verifier.connection(options.token, unix_s=unix_s)
        asyncio.run(_awaited(reading))
    except TokenRefusedError as refusal:
        print(f"no: {refusal.cause.replace('_', ' ')} (the client would get {refusal.answer.code})")
        return 1
    print(f"yes: a {'subscription' if channel else 'connection'} token\n{json.dumps(claims, indent=2)}")
    return 0


async def _awaited(reading: Any) -> Any:
    return await reading


def _check_config(options: argparse.Namespace) -> int:
    _load(options)
    print("the configuration is good")
    return 0


def _print_defaults(_options: argparse.Namespace) -> int:
    print(configdoc.as_toml(Config()), end="")
    return 0


def _print_reference(text: str, check: Path | None) -> int:
    if check is None:
        print(text, end="")
        return 0
    if check.is_file() and check.read_text(encoding="utf-8") == text:
        return 0
    print(f"{check} is not what the code says: run `make reference`", file=sys.stderr)
    return 1


def _fail(message: str) -> Never:
    raise ConfigError([message])


if __name__ == "__main__":
    sys.exit(main())
