"""The peers: what each is, what it needs, how it is started, how one speaks to it.

Versions are pinned, so that two tables compare the same; raise them together with a new table in the README.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.peers.dialects import BARE, CENTRIFUGO, SOCKET_IO, Dialect

SERVERS: Final = Path(__file__).with_name("servers")

_UVLOOP: Final = "uvloop==0.23.0"
_WEBSOCKETS: Final = "websockets==17.4"
_UVICORN: Final = ("uvicorn==0.54.0", "httptools==0.9.0", _UVLOOP, _WEBSOCKETS)


@dataclass(frozen=True)
class PythonPackages:
    """Packages from PyPI, in a virtual environment of their own."""

    requirements: Sequence[str]


@dataclass(frozen=True)
class NodePackages:
    """Packages from npm, in a folder of their own."""

    requirements: Mapping[str, str]


@dataclass(frozen=True)
class DebianPackages:
    """Packages of Debian, unpacked into a folder of their own and not installed."""

    names: Sequence[str]


@dataclass(frozen=True)
class ThisCheckout:
    """Nothing: it is here."""


Needs = PythonPackages | NodePackages | DebianPackages | ThisCheckout


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One server to compare."""

    key: str
    """Its name on the command line."""
    title: str
    """Its name in the table."""
    needs: Needs
    script: str
    """The file in `servers/`."""
    dialect: Dialect
    has_redis: bool = False


GATEWAY: Final = Peer(
    key="gateway", title="**gateway**, in memory", needs=ThisCheckout(), script="gateway.toml", dialect=CENTRIFUGO
)
PEERS: Final = (
    GATEWAY,
    Peer(
        key="gateway-redis",
        title="**gateway**, Redis",
        needs=ThisCheckout(),
        script="gateway.toml",
        dialect=CENTRIFUGO,
        has_redis=True,
    ),
    Peer(
        key="nchan",
        title="nchan (nginx, C)",
        needs=DebianPackages(("nginx", "libnginx-mod-nchan")),
        script="nchan.conf",
        dialect=BARE,
    ),
    Peer(
        key="picows",
        title="picows, a loop of sends (Cython)",
        needs=PythonPackages(("picows==2.3.1", _UVLOOP)),
        script="picows_listener.py",
        dialect=BARE,
    ),
    Peer(
        key="websockets",
        title="websockets, `broadcast()`",
        needs=PythonPackages((_WEBSOCKETS, _UVLOOP)),
        script="websockets_broadcast.py",
        dialect=BARE,
    ),
    Peer(
        key="fastapi",
        title="FastAPI, a list of sockets",
        needs=PythonPackages(("fastapi==0.165.0", *_UVICORN)),
        script="fastapi_list.py",
        dialect=BARE,
    ),
    Peer(
        key="socket.io",
        title="Socket.IO (Node.js), a room",
        needs=NodePackages({"socket.io": "4.8.4", "bufferutil": "4.1.0"}),
        script="socketio.mjs",
        dialect=SOCKET_IO,
    ),
    Peer(
        key="python-socketio",
        title="python-socketio, a room",
        needs=PythonPackages(("python-socketio==5.18.1", "orjson==3.13.0", *_UVICORN)),
        script="python_socketio.py",
        dialect=SOCKET_IO,
    ),
    Peer(
        key="channels",
        title="Django Channels, channels_redis",
        needs=PythonPackages(
            ("channels==4.3.2", "channels-redis==4.3.0", "django==5.2.19", "redis[hiredis]==8.1.0", *_UVICORN)
        ),
        script="django_channels.py",
        dialect=BARE,
        has_redis=True,
    ),
)
KEYS: Final = tuple(peer.key for peer in PEERS)
