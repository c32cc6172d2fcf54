"""`gateway publish` and `gateway subscribe`: a client for shells and pipes, against any node.

What is published and received goes over standard input and output, one publication a line; all that is said about it
goes to standard error. So both ends of a pipe work, and so does `| head`.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Final, TextIO

import msgspec

from gateway.client import (
    Backoff,
    Client,
    ClientError,
    ClientEvent,
    ClientSettings,
    Publication,
    Reconnecting,
    Resubscribing,
    StreamPosition,
    Subscribed,
    Subscription,
    SubscriptionEvent,
    SubscriptionSettings,
    Unsubscribed,
)
from gateway.client.errors import advice
from gateway.protocol.messages import ClientInfo

DEFAULT_URL: Final = "ws://127.0.0.1:8000/connection/websocket"
_FAILED: Final = 1
_USAGE_ERROR: Final = 2
_INTERRUPTED: Final = 128 + signal.SIGINT
_FIRST_ATTEMPTS: Final = 2
"""Retries of a publish's connection: whoever sits before it wants to know."""


class _FailedError(Exception):
    """A publish over the server API failed; the text says why."""


def add_publish_arguments(publish: argparse.ArgumentParser) -> None:
    """Say what `publish` takes."""
    publish.add_argument("channel")
    publish.add_argument("data", help='JSON; "-": one publication for each line of standard input')
    publish.add_argument(
        "--text", action="store_true", help="take DATA, or each line, for text and publish a JSON string"
    )
    add_key(publish)
    publish.add_argument(
        "--api",
        default="",
        metavar="URL",
        help="publish over the server API at URL, with --key, not as a client (env: GATEWAY_API_URL, without --url)",
    )
    _add_server(publish)
    publish.set_defaults(run=_publish)


def add_subscribe_arguments(subscribe: argparse.ArgumentParser) -> None:
    """Say what `subscribe` takes."""
    subscribe.add_argument("channels", nargs="+", metavar="channel")
    subscribe.add_argument("--json", action="store_true", help="print whole publications as JSON, channel included")
    subscribe.add_argument(
        "--since", type=_position, metavar="OFFSET[:EPOCH]", help="begin with what follows this place in the stream"
    )
    subscribe.add_argument("--count", type=int, metavar="N", help="end after N publications")
    _add_server(subscribe)
    subscribe.set_defaults(run=_subscribe)


def add_key(parser: argparse.ArgumentParser) -> None:
    """Add the option of a key of the server API."""
    key = os.environ.get("GATEWAY_API_KEY", "")
    parser.add_argument("--key", default=key, help="an API key; better from the environment (env: GATEWAY_API_KEY)")


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="", help=f"(env: GATEWAY_URL; default: {DEFAULT_URL})")
    parser.add_argument("--token", default=os.environ.get("GATEWAY_TOKEN", ""), help="(env: GATEWAY_TOKEN)")


def _url(options: argparse.Namespace) -> str:
    return options.url or os.environ.get("GATEWAY_URL", "") or DEFAULT_URL


def _position(text: str) -> StreamPosition:
    offset, _, epoch = text.partition(":")
    if not offset.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r}: an offset, or offset:epoch, as `gateway subscribe --json` prints them"
        )
    return StreamPosition(int(offset), epoch)


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run a command to its exit code."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (ClientError, _FailedError) as error:
        print(error, file=sys.stderr)
        return _FAILED
    except BrokenPipeError:
        # Who read the output has gone (`| head`). What Python still holds for it must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _note(event: ClientEvent | SubscriptionEvent) -> None:
    """Say on standard error what a user should know of the connection."""
    match event:
        case Reconnecting():
            print(f"no connection ({event.reason or event.code}); trying again", file=sys.stderr)
        case Resubscribing():
            print(f"{event.channel}: interrupted ({event.reason}); subscribing again", file=sys.stderr)
        case Subscribed(may_have_missed=True):
            print(f"{event.channel}: publications may be missing here", file=sys.stderr)
        case _:
            pass


# publish


def _publish(options: argparse.Namespace) -> int:
    payload = _as_text if options.text else _as_json
    try:
        first = None if options.data == "-" else payload(options.data)
    except ValueError as error:
        print(error, file=sys.stderr)
        return _USAGE_ERROR
    return _run(_publish_all(options, first, payload))


def _as_json(text: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        raise ValueError(
            f"{text!r} is no JSON: a string needs its own quotes ('\"like this\"'), or use --text"
        ) from None
    return msgspec.Raw(text.encode())


def _as_text(text: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(text))


async def _publish_all(
    options: argparse.Namespace, data: msgspec.Raw | None, payload: Callable[[str], msgspec.Raw]
) -> int:
    async with _publishing(options) as publish:
        if data is not None:
            await publish(data)
            return 0
        failures = 0
        async for number, line in _lines(sys.stdin):
            try:
                await publish(payload(line))
            except ValueError as error:
                failures += 1
                print(f"line {number}: {error}", file=sys.stderr)
        return _FAILED if failures else 0


@contextlib.asynccontextmanager
async def _publishing(options: argparse.Namespace) -> AsyncIterator[Callable[[msgspec.Raw], Awaitable[object]]]:
    """Give what publishes one payload: a backend's call of the server API if there is a URL for it, else a client."""
    # Who names a client's address means to be a client, whatever the environment says.
    api = options.api or (os.environ.get("GATEWAY_API_URL", "") if not options.url else "")
    if api:
        from gateway.publisher import AsyncPublisher, PublisherError  # noqa: PLC0415 - brings what only this needs

        try:
            async with AsyncPublisher.over_http(api, key=options.key) as publisher:
                yield lambda data: publisher.publish(options.channel, bytes(data))
        except PublisherError as error:
            raise _FailedError(str(error)) from error
        return
    settings = ClientSettings(name="gateway-cli", backoff=Backoff(max_retries=_FIRST_ATTEMPTS))
    async with Client(_url(options), token=options.token, settings=settings, on_event=_note) as client:
        yield lambda data: client.publish(options.channel, data)


async def _lines(stream: TextIO) -> AsyncIterator[tuple[int, str]]:
    """Yield the lines of *stream* with their numbers, empty ones left out, as they come."""
    number = 0
    while line := await asyncio.to_thread(stream.readline):
        number += 1
        if line.strip():
            yield number, line.rstrip("\r\n")


# subscribe


class _Line(msgspec.Struct, omit_defaults=True):
    channel: str
    data: msgspec.Raw
    offset: int = 0
    epoch: str = ""
    info: ClientInfo | None = None
    tags: dict[str, str] = {}
    version: int = 0


class _Printer:
    """Prints publications, counts them, and ends the command when it is enough."""

    def __init__(self, *, as_json: bool, shows_channel: bool, most: int | None) -> None:
        self.enough = asyncio.Event()
        self.code = 0
        self.fault: OSError | None = None
        self._as_json = as_json
        self._shows_channel = shows_channel
        self._left = most

    def subscribe(self, client: Client, channel: str, since: StreamPosition | None) -> Subscription:
        """Subscribe *client* to *channel* and print what comes."""
        subscription = client.subscribe(
            channel,
            settings=SubscriptionSettings(since=since),
            on_publication=lambda publication: self._take(channel, subscription.position.epoch, publication),
            on_event=self._note,
        )
        return subscription

    def fail(self, reason: str) -> None:
        """End the command, which can't do what it should."""
        print(reason, file=sys.stderr)
        self.code = _FAILED
        self.enough.set()

    def _take(self, channel: str, epoch: str, publication: Publication) -> None:
        if self.enough.is_set():
            return
        try:
            print(self._line(channel, epoch, publication), flush=True)
        except OSError as error:
            self.fault = error
            self.enough.set()
            return
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.enough.set()

    def _line(self, channel: str, epoch: str, publication: Publication) -> str:
        if self._as_json:
            at = epoch if publication.offset else ""
            line = _Line(
                channel,
                publication.data,
                publication.offset,
                at,
                publication.info,
                publication.tags,
                publication.version,
            )
            return msgspec.json.encode(line).decode()
        data = bytes(publication.data).decode(errors="backslashreplace")
        return f"{channel}\t{data}" if self._shows_channel else data

    def _note(self, event: SubscriptionEvent) -> None:
        if isinstance(event, Unsubscribed):
            if not self.enough.is_set():  # else it is this side that ends it
                self.fail(f"{event.channel}: {event.reason}: {advice(event.code)}")
        else:
            _note(event)


def _subscribe(options: argparse.Namespace) -> int:
    if options.count is not None and options.count < 1:
        print(f"--count {options.count}: one or more", file=sys.stderr)
        return _USAGE_ERROR
    return _run(_print_all(options))


async def _print_all(options: argparse.Namespace) -> int:
    channels = list(dict.fromkeys(options.channels))
    printer = _Printer(as_json=options.json, shows_channel=len(channels) > 1, most=options.count)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        # A user's Ctrl-C and a service manager's stop are the usual end, not a failure.
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, printer.enough.set)
    client = Client(_url(options), token=options.token, settings=ClientSettings(name="gateway-cli"), on_event=_note)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run(), name="client")
        subscribing = tasks.create_task(_confirm(client, channels, options.since, printer), name="subscribing")
        await printer.enough.wait()
        subscribing.cancel()
        client.stop()
        await running
    if isinstance(printer.fault, BrokenPipeError):
        raise printer.fault
    return printer.code


async def _confirm(client: Client, channels: list[str], since: StreamPosition | None, printer: _Printer) -> None:
    """Subscribe to all channels, and say when all are confirmed; a refusal ends the command."""
    try:
        await client.connected()
        for subscription in [printer.subscribe(client, channel, since) for channel in channels]:
            await subscription.confirmed()
    except ClientError as error:
        if not printer.enough.is_set():
            printer.fail(str(error))
        return
    print(f"subscribed to {', '.join(channels)}; Ctrl-C ends", file=sys.stderr)
