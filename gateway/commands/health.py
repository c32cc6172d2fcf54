"""`gateway health`: ask a node how it is, for container engines and scripts."""

import argparse
import http.client
import os
import sys
from typing import Final
from urllib.parse import urlsplit

CHECKS: Final = ("livez", "readyz", "startupz")
_PORT: Final = "GATEWAY_HTTP_SERVER__INTERNAL_PORT"
_DEFAULT_PORT: Final = "9000"
_TIMEOUT_S: Final = 3.0
_LONGEST_ANSWER: Final = 4096
_UNHEALTHY: Final = 1
_USAGE_ERROR: Final = 2


def add_arguments(health: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    health.description = "Print what a node says of its health; the exit code is 0 when it is well, and else 1."
    health.add_argument("check", nargs="?", choices=CHECKS, default=CHECKS[0], help="(default: livez)")
    url = f"http://127.0.0.1:{os.environ.get(_PORT) or _DEFAULT_PORT}"
    health.add_argument("--url", default=url, help=f"the node's internal port (default: {url}, by env: {_PORT})")
    health.set_defaults(run=_ask)


def _ask(options: argparse.Namespace) -> int:
    connection = _connection_to(options.url)
    if connection is None:
        print(f"{options.url!r} is no http:// address of a node's internal port", file=sys.stderr)
        return _USAGE_ERROR
    try:
        connection.request("GET", f"/{options.check}")
        response = connection.getresponse()
        said = response.read(_LONGEST_ANSWER).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        print(f"{options.url}: {reason}", file=sys.stderr)
        return _UNHEALTHY
    finally:
        connection.close()
    print(said)
    return 0 if response.status == http.client.OK else _UNHEALTHY


def _connection_to(url: str) -> http.client.HTTPConnection | None:
    # http.client and not httpx: container engines run this every few seconds, and it is there in a third of the time.
    try:
        scheme, address = urlsplit(url)[:2]
        return http.client.HTTPConnection(address, timeout=_TIMEOUT_S) if scheme == "http" and address else None
    except (ValueError, http.client.InvalidURL):
        return None
