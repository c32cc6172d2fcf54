"""Connection tokens for clients of the load test: HS256, which is all it needs."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping


def connection_token(user: str, *, secret: str, expires_unix_s: int) -> str:
    """Return a JSON Web Token that names *user* (RFC 7519)."""
    claims: dict[str, str | int] = {"sub": user, "exp": expires_unix_s}
    signed = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64(signature)}"


def _encode(value: Mapping[str, str | int]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
