"""`gateway token`: make and check tokens."""

import argparse
import asyncio
import json
import time
from typing import Any

import jwt

from gateway.auth.tokens import TokenRefusedError, TokenVerifier
from gateway.commands.options import add_config, fail, load_config, telling
from gateway.config import Config
from gateway.settings import parse_duration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    token = parser.add_subparsers(required=True, metavar="WHAT")
    create = token.add_parser("create", help="print a token, signed with the configured HMAC secret")
    add_config(create)
    create.add_argument("--user", required=True, help="the user (claim sub); '' for anonymous")
    create.add_argument("--channel", help="make a subscription token for this channel")
    create.add_argument("--ttl", default="1h", help='lifetime, such as "1h" or 3600; 0: for ever (default: 1h)')
    create.add_argument("--info", help="JSON that others see of the client (claim info)")
    create.set_defaults(run=telling(_create_token))
    check = token.add_parser("check", help="say whether a token is good, and what it holds")
    add_config(check)
    check.add_argument("token")
    check.set_defaults(run=telling(_check_token))


def _create_token(options: argparse.Namespace) -> int:
    config = load_config(options)
    try:
        ttl_s = float(parse_duration(options.ttl))
        info = json.loads(options.info) if options.info else None
    except ValueError as error:
        fail(f"--ttl or --info: {error}")
    print(make_token(config, user=options.user, channel=options.channel, ttl_s=ttl_s, info=info))
    return 0


def make_token(config: Config, *, user: str, channel: str | None, ttl_s: float, info: Any) -> str:
    """Return a token signed with the configured HMAC secret; one for *channel* if there is one; *ttl_s* 0: for ever.

    Raises:
        ConfigError: if there is no secret.
    """
    client = config.client
    settings = client.subscription_token if channel and client.subscription_token.enabled else client.token
    if not settings.hmac_secret_key:
        fail("client.token.hmac_secret_key is not set: there is nothing to sign a token with")
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
    client = load_config(options).client
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
