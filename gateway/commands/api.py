"""`gateway api`: the command line as a client of the server API."""

import argparse
import json
import os
import sys
from typing import Any, Final

import httpx

from gateway.commands.terminal import add_key
from gateway.messaging.batches import BATCH, METHODS

DEFAULT_URL: Final = "http://127.0.0.1:9000"
_TIMEOUT_S: Final = 30.0
_FAILED: Final = 1
_USAGE_ERROR: Final = 2


def add_arguments(api: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    methods = ", ".join((*METHODS, BATCH))
    api.description = "Call a method of a node's server API and print its result."
    api.epilog = f"Methods: {methods}. A node describes their bodies at /docs of its internal port."
    api.add_argument("method", choices=(*METHODS, BATCH), metavar="METHOD")
    api.add_argument(
        "body", nargs="?", default="{}", metavar="JSON", help='the call (default: {}; "-": standard input)'
    )
    url = os.environ.get("GATEWAY_API_URL", DEFAULT_URL)
    api.add_argument("--api", default=url, metavar="URL", help=f"(env: GATEWAY_API_URL; default: {DEFAULT_URL})")
    add_key(api)
    api.set_defaults(run=_call)


def _call(options: argparse.Namespace) -> int:
    text = sys.stdin.read() if options.body == "-" else options.body
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        print(f"{text[:200]!r} is no JSON: {error}", file=sys.stderr)
        return _USAGE_ERROR
    url = f"{options.api.rstrip('/')}/api/{options.method}"
    try:
        response = httpx.post(url, content=text, headers={"X-API-Key": options.key}, timeout=_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
        print(f"{url}: {str(error) or type(error).__name__}", file=sys.stderr)
        return _FAILED
    told = _error_of(response)
    if told:
        print(told, file=sys.stderr)
        return _FAILED
    if response.status_code != httpx.codes.OK:
        advice = {401: "no key, or a wrong one: --key or GATEWAY_API_KEY", 404: "there is no server API"}
        said = advice.get(response.status_code) or response.text.strip()
        print(f"{url}: {said} (status {response.status_code})", file=sys.stderr)
        return _FAILED
    answer = _object_in(response)
    if answer is None or "error" in answer:
        print(f"{url}: this is no server API, but something else", file=sys.stderr)
        return _FAILED
    print(json.dumps(answer.get("result", answer), indent=2, ensure_ascii=False))
    return 0


def _error_of(response: httpx.Response) -> str:
    """Say why the call was not carried out, in whichever error mode the node is; empty if no node says so."""
    answer = _object_in(response) or {}
    match answer if response.status_code != httpx.codes.OK else answer.get("error"):
        case {"code": int(code), "message": str(message)}:
            reason = response.headers.get("X-Error-Reason", "")
            return f"{message} ({code}): {reason}".removesuffix(": ")
        case _:
            return ""


def _object_in(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
