"""The numbered exchanges of protocol.md, section 9, as far as they need no proxy and no other transport.

Each script is a table of lines:

    → line      the client sends a frame; `‖` joins several commands
    ← line      the server sends this message next, byte for byte
    ■ code …    the server closes with this code and reason, and nothing comes before
    + seconds   the clock moves forward
    ! call …    the server API is called; `user` is 42 unless given, and `transport:call` asks for that error mode
    = status …  that call was answered so, byte for byte; without such a line, with 200 and an empty result
    A: B:       whose line it is; without it, A's

`JWT(name)` stands for the token with the claims of that name. In what is received, client ids read `<A>`, `<B>` (in the
order in which they connected), the version text `V`, and epochs `<E1>`, `<E2>` in the order in which a script meets
them; a line that is sent may name them. Pings are left out unless a script expects one, since a
loaded machine may take longer over a script than a ping interval.
"""

import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

import httpx
import jwt
import pytest
import pytest_asyncio

from tests.support.nodes import SECRET, RunningNode, running_node
from tests.support.redis_servers import redis_server
from tests.support.wires import (
    DEADLINE_S,
    EndedError,
    InEvents,
    InJSON,
    InProtobuf,
    StreamWire,
    Talker,
    WebSocketWire,
    Wire,
)

_CLIENT_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_EPOCH: Final = re.compile(r'"epoch":"([A-Za-z]{8})"')
_PUBLICATION: Final = re.compile(r"PUB\((\d+)(?:,(<E\d>))?\)")
_TTL: Final = re.compile(r'"ttl":(\d+)')
_SLACK_S: Final = 5
_DONE: Final = '200 {"result":{}}'
_ABOUT_USERS: Final = {"subscribe", "unsubscribe", "disconnect", "refresh"}
_EXPIRES_IN: Final = re.compile(r'"expires_in":(\d+)')
_VERSION: Final = re.compile(r'"version":"gateway [^"]+"')

SUBSCRIBE = {"allow_subscribe_for_client": True}
STREAM = {
    **SUBSCRIBE,
    "allow_publish_for_client": True,
    "allow_history_for_subscriber": True,
    "history_size": 5,
    "history_ttl": "300s",
    "force_recovery": True,
}
API_KEY: Final = "a key of the tests"
SETTINGS: dict[str, Any] = {
    "http_api": {"key": API_KEY},
    "client": {
        "allow_anonymous_connect_without_token": False,
        "ping_interval": "5s",
        "pong_timeout": "2s",
        "channel_limit": 3,
    },
    "handlers": {"rpc_methods": ["echo"]},
    "channel": {
        "without_namespace": {**SUBSCRIBE, "allow_publish_for_client": True},
        "namespaces": [
            {"name": "chat", **SUBSCRIBE, "allow_publish_for_client": True},
            {"name": "regex", **SUBSCRIBE, "channel_regex": "^[a-z]+$"},
            {"name": "user", **SUBSCRIBE, "allow_user_limited_channels": True},
            {"name": "binary", **SUBSCRIBE, "publication_data_format": "binary"},
            {"name": "closed"},
            {"name": "stream", **STREAM},
            {"name": "tags", **STREAM, "allow_tags_filter": True},
            {"name": "off", **STREAM, "allow_history_for_subscriber": False, "allow_publish_for_client": False},
            {
                "name": "pos",
                **STREAM,
                "force_recovery": False,
                "allow_positioning": True,
                "allow_recovery": True,
                "allow_history_for_subscriber": False,
            },
            {"name": "cache", **STREAM, "force_recovery_mode": "cache"},
            {
                "name": "room",
                **STREAM,
                "presence": True,
                "join_leave": True,
                "force_push_join_leave": True,
                "allow_presence_for_subscriber": True,
            },
            # Nobody is told who comes and goes but those who ask and may.
            {"name": "asked", **SUBSCRIBE, "presence": True, "join_leave": True, "allow_presence_for_subscriber": True},
            {"name": "secret", **SUBSCRIBE, "presence": True, "join_leave": True},
            {"name": "auto", **STREAM, "force_recovery_mode": "cache", "auto_cache_recover": True},
            {"name": "eased", **SUBSCRIBE, "publish_debounce": "0.25s"},
        ],
    },
}

# Times are seconds from now.
TIMES = {"exp", "nbf", "expire_at"}
CLAIMS: dict[str, dict[str, Any]] = {
    "42": {"sub": "42"},
    "42 named": {"sub": "42", "info": {"name": "Alice"}},
    "43": {"sub": "43"},
    "exp": {"sub": "42", "exp": 100},
    "exp long": {"sub": "42", "exp": 595},
    "expired": {"sub": "42", "exp": -1},
    "expire_at passed": {"sub": "42", "expire_at": -1},
    "numeric sub": {"sub": 42},
    "channel claim": {"sub": "42", "channel": "plain"},
    "nope": {"sub": "42", "channels": ["nope:x"]},
    "$room:x": {"sub": "42", "channel": "$room:x", "info": {"role": "admin"}, "data": {"hello": 1}},
    "server-side room": {"sub": "42", "channels": ["room:31", "plain"]},
    "server-side 35": {"sub": "42", "channels": ["stream:35s"]},
    "server-side stream": {"sub": "42", "channels": ["stream:32"]},
    "server-side": {"sub": "42", "channels": ["chat:ss", "plain"]},
    "$chat:x": {"sub": "42", "channel": "$chat:x", "info": {"role": "admin"}, "data": {"hello": 1}},
    "$chat:x expired": {"sub": "42", "channel": "$chat:x", "exp": -1},
    "$chat:x of 43": {"sub": "43", "channel": "$chat:x"},
    "$chat:x exp": {"sub": "42", "channel": "$chat:x", "exp": 60},
    "regex:abc exp": {"sub": "42", "channel": "regex:abc", "exp": 60},
    "regex:abc soon": {"sub": "42", "channel": "regex:abc", "exp": 2},
}

CONNECTED = '{"id":1,"connect":{"client":"<A>","version":"V","ping":5,"pong":true}}'
OPEN = f'→ {{"id":1,"connect":{{"token":"JWT(42)"}}}}\n← {CONNECTED}\n'
OPEN_B = OPEN.replace("→", "B: →").replace("←", "B: ←").replace("42", "43").replace("<A>", "<B>")
OPEN_NAMED = OPEN.replace("JWT(42)", "JWT(42 named)")
OPEN_EXPIRING = """
→ {"id":1,"connect":{"token":"JWT(exp)"}}
← {"id":1,"connect":{"client":"<A>","version":"V","expires":true,"ttl":100,"ping":5,"pong":true}}
"""


def _published(channel: str, count: int) -> str:
    """Connect A, who publishes `{"n": 1}` and on, without being subscribed."""
    steps = [
        f'→ {{"id":{100 + n},"publish":{{"channel":"{channel}","data":{{"n": {n}}}}}}}\n'
        f'← {{"id":{100 + n},"publish":{{}}}}\n'
        for n in range(1, count + 1)
    ]
    return OPEN + "".join(steps)


ONLY_IN_JSON: Final = {"9 subscribing where payloads are no JSON"}
ONLY_ON_WEBSOCKETS: Final = {
    "3.1 no connect in time",  # a stream begins with what the client says
    "5 expired token, and nothing more is answered",  # without a session nothing can be sent
    "37 message above 64 KiB",  # is a status there
}
EXAMPLES: dict[str, str] = {
    "1 connect": '→ {"id":1,"connect":{"token":"JWT(42)","name":"js"}}\n← ' + CONNECTED,
    "2 token with exp": OPEN_EXPIRING,
    "3 no token, anonymous not allowed": """
        → {"id":1,"connect":{}}
        ■ 3501 bad request
    """,
    "4 garbage for a token": """
        → {"id":1,"connect":{"token":"a.b.c"}}
        ■ 3500 invalid token
    """,
    "4 wrong key": """
        → {"id":1,"connect":{"token":"FORGED(42)"}}
        ■ 3500 invalid token
    """,
    "4 numeric sub": """
        → {"id":1,"connect":{"token":"JWT(numeric sub)"}}
        ■ 3500 invalid token
    """,
    "4 a channel claim": """
        → {"id":1,"connect":{"token":"JWT(channel claim)"}}
        ■ 3500 invalid token
    """,
    "5 expired token, and nothing more is answered": """
        → {"id":1,"connect":{"token":"JWT(expired)"}} ‖ {"id":2,"subscribe":{"channel":"chat:x","flag":1}}
        ← {"id":1,"error":{"code":109,"message":"token expired"}}
        → {"id":3,"connect":{"token":"JWT(42)"}}
        + 10
        ■ 3502 stale
    """,
    "6 expire_at in the past": """
        → {"id":1,"connect":{"token":"JWT(expire_at passed)"}}
        ← {"id":1,"error":{"code":110,"message":"expired"}}
    """,
    "6 unknown namespace in channels": """
        → {"id":1,"connect":{"token":"JWT(nope)"}}
        ← {"id":1,"error":{"code":102,"message":"unknown channel"}}
    """,
    "7 the first command is another": """
        → {"id":1,"subscribe":{"channel":"chat:x"}}
        ■ 3501 bad request
    """,
    "7 the first command is a pong": "→ {}\n■ 3501 bad request",
    "7 connect with id 0": """
        → {"id":0,"connect":{"token":"JWT(42)"}}
        ■ 3501 bad request
    """,
    "7 broken JSON": '→ {"id":1,"connect":\n■ 3501 bad request',
    "7 an empty frame": "→\n■ 3501 bad request",
    "7 an id of a wrong type": '→ {"id":"6","connect":{}}\n■ 3501 bad request',
    "8 connect and subscribe in one frame": f"""
        → {{"id":1,"connect":{{"token":"JWT(42)"}}}} ‖ {{"id":2,"subscribe":{{"channel":"chat:x","flag":1}}}}
        ← {CONNECTED}
        ← {{"id":2,"subscribe":{{}}}}
    """,
    "9 subscribing": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"plain"}}
        ← {"id":2,"subscribe":{}}
        → {"id":3,"subscribe":{"channel":"plain"}}
        ← {"id":3,"error":{"code":105,"message":"already subscribed"}}
        → {"id":4,"subscribe":{"channel":"closed:x"}}
        ← {"id":4,"error":{"code":103,"message":"permission denied"}}
        → {"id":5,"subscribe":{"channel":"nope:x"}}
        ← {"id":5,"error":{"code":102,"message":"unknown channel"}}
        → {"id":7,"subscribe":{"channel":"LONG"}}
        ← {"id":7,"error":{"code":107,"message":"bad request"}}
        → {"id":8,"subscribe":{"channel":"regex:ABC"}}
        ← {"id":8,"error":{"code":107,"message":"bad request"}}
    """.replace("LONG", "x" * 256),
    "9 subscribing where payloads are no JSON": OPEN
    + """
        → {"id":9,"subscribe":{"channel":"binary:x"}}
        ← {"id":9,"error":{"code":108,"message":"not available"}}
    """,
    "10 one above the channel limit": OPEN
    + """
        → {"id":9,"subscribe":{"channel":"a"}} ‖ {"id":10,"subscribe":{"channel":"b"}}
        ← {"id":9,"subscribe":{}}
        ← {"id":10,"subscribe":{}}
        → {"id":11,"subscribe":{"channel":"c"}} ‖ {"id":12,"subscribe":{"channel":"d"}}
        ← {"id":11,"subscribe":{}}
        ← {"id":12,"error":{"code":106,"message":"limit exceeded"}}
    """,
    "11 private channel without and with token": OPEN
    + """
        → {"id":10,"subscribe":{"channel":"$chat:x"}}
        ← {"id":10,"error":{"code":103,"message":"permission denied"}}
        → {"id":11,"subscribe":{"channel":"$chat:x","token":"JWT($chat:x)"}}
        ← {"id":11,"subscribe":{"data":{"hello":1}}}
    """,
    "12 user-limited": OPEN
    + """
        → {"id":13,"subscribe":{"channel":"user:room#41,42"}}
        ← {"id":13,"subscribe":{}}
        → {"id":14,"subscribe":{"channel":"user:room#43"}}
        ← {"id":14,"error":{"code":103,"message":"permission denied"}}
    """,
    "13 subscription token expired, forged, for another channel": OPEN
    + """
        → {"id":15,"subscribe":{"channel":"$chat:x","token":"JWT($chat:x expired)"}}
        ← {"id":15,"error":{"code":109,"message":"token expired"}}
        → {"id":16,"subscribe":{"channel":"$chat:x","token":"FORGED($chat:x)"}}
        ← {"id":16,"error":{"code":103,"message":"permission denied"}}
        → {"id":17,"subscribe":{"channel":"$chat:y","token":"JWT($chat:x)"}}
        ■ 3500 invalid token
    """,
    "13 subscription token of another user": OPEN
    + """
        → {"id":17,"subscribe":{"channel":"$chat:x","token":"JWT($chat:x of 43)"}}
        ■ 3500 invalid token
    """,
    "14 subscription token with exp": OPEN
    + """
        → {"id":18,"subscribe":{"channel":"$chat:x","token":"JWT($chat:x exp)"}}
        ← {"id":18,"subscribe":{"expires":true,"ttl":60}}
    """,
    "15, 16 publish by a subscriber; the text of the data passes through untouched": OPEN_NAMED
    + """
        → {"id":19,"subscribe":{"channel":"chat:room"}}
        ← {"id":19,"subscribe":{}}
        → {"id":20,"publish":{"channel":"chat:room","data":{"text":"hi"}}}
        ← {"id":20,"publish":{}}
        ← {"push":{"channel":"chat:room","pub":{"data":{"text":"hi"},"info":INFO}}}
        → {"id":21,"publish":{"channel":"chat:room","data":{"t": "<b>&é"  , "n":1.0}}}
        ← {"id":21,"publish":{}}
        ← {"push":{"channel":"chat:room","pub":{"data":{"t": "<b>&é"  , "n":1.0},"info":INFO}}}
    """.replace("INFO", '{"user":"42","client":"<A>","conn_info":{"name":"Alice"}}'),
    "17 publish without data; without permission": OPEN
    + """
        → {"id":22,"publish":{"channel":"chat:room"}}
        ← {"id":22,"error":{"code":107,"message":"bad request"}}
        → {"id":23,"publish":{"channel":"closed:x","data":{}}}
        ← {"id":23,"error":{"code":103,"message":"permission denied"}}
    """,
    "18, 19 presence and history where they are off": OPEN
    + """
        → {"id":24,"presence":{"channel":"plain"}} ‖ {"id":25,"presence_stats":{"channel":"plain"}}
        ← {"id":24,"error":{"code":108,"message":"not available"}}
        ← {"id":25,"error":{"code":108,"message":"not available"}}
        → {"id":4,"history":{"channel":"plain"}}
        ← {"id":4,"error":{"code":108,"message":"not available"}}
    """,
    "26 unsubscribe, also when not subscribed; nothing comes afterwards": OPEN
    + OPEN_B
    + """
        → {"id":2,"subscribe":{"channel":"chat:room"}}
        ← {"id":2,"subscribe":{}}
        → {"id":3,"unsubscribe":{"channel":"chat:room"}}
        ← {"id":3,"unsubscribe":{}}
        B: → {"id":2,"publish":{"channel":"chat:room","data":1}}
        B: ← {"id":2,"publish":{}}
        → {"id":4,"unsubscribe":{"channel":"chat:room"}}
        ← {"id":4,"unsubscribe":{}}
    """,
    "27 pings and pongs": OPEN
    + """
        + 5
        ← {}
        → {}
        + 5
        ← {}
        → {} ‖ {"id":2,"rpc":{"method":"ping"}}
        ← {"id":2,"rpc":{}}
    """,
    "27 a ping left unanswered": OPEN
    + """
        + 5
        ← {}
        → {"id":2,"rpc":{"method":"ping"}}
        ← {"id":2,"rpc":{}}
        + 2
        ■ 3012 no pong
    """,
    "27 a pong nobody asked for": OPEN + "→ {}\n■ 3501 bad request",
    "27 a second pong for one ping": OPEN
    + """
        + 5
        ← {}
        → {} ‖ {}
        ■ 3501 bad request
    """,
    "28 refresh": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{"token":"JWT(exp long)"}}
        ← {"id":2,"refresh":{"expires":true,"ttl":595}}
        → {"id":3,"refresh":{"token":"JWT(42)"}}
        ← {"id":3,"refresh":{}}
    """,
    "28 refresh with an expired token": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{"token":"JWT(expired)"}}
        ■ 3005 connection expired
    """,
    "28 refresh with an invalid token": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{"token":"FORGED(exp long)"}}
        ■ 3500 invalid token
    """,
    "28 refresh with another user's token": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{"token":"JWT(43)"}}
        ■ 3500 invalid token
    """,
    "28 refresh with an empty token": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{}}
        ■ 3501 bad request
    """,
    "28 refresh with other channels in the token": OPEN_EXPIRING
    + """
        → {"id":2,"refresh":{"token":"JWT(server-side)"}}
        ■ 3010 insufficient state
    """,
    "29 no refresh until exp and the delay": OPEN_EXPIRING
    + """
        + 126
        ■ 3005 connection expired
    """,
    "30 sub_refresh": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"regex:abc","token":"JWT(regex:abc exp)"}}
        ← {"id":2,"subscribe":{"expires":true,"ttl":60}}
        → {"id":3,"sub_refresh":{"channel":"regex:abc","token":"JWT(regex:abc soon)"}}
        ← {"id":3,"sub_refresh":{"expires":true,"ttl":2}}
        → {"id":4,"sub_refresh":{"channel":"chat:x","token":"JWT(regex:abc exp)"}}
        ← {"id":4,"error":{"code":103,"message":"permission denied"}}
        → {"id":5,"sub_refresh":{"channel":"regex:abc"}}
        ← {"id":5,"error":{"code":107,"message":"bad request"}}
        + 28
        ← {"push":{"channel":"regex:abc","unsubscribe":{"code":2501,"reason":"subscription expired"}}}
    """,
    "31 server-side subscriptions from the token": OPEN_B
    + """
        → {"id":1,"connect":{"token":"JWT(server-side)"}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","subs":{"chat:ss":{},"plain":{}},"ping":5,"pong":true}}
        B: → {"id":2,"publish":{"channel":"chat:ss","data":{"n": 2}}}
        B: ← {"id":2,"publish":{}}
        ← {"push":{"channel":"chat:ss","pub":{"data":{"n": 2},"info":{"user":"43","client":"<B>"}}}}
        → {"id":2,"subscribe":{"channel":"plain"}}
        ← {"id":2,"error":{"code":105,"message":"already subscribed"}}
    """,
    "36 rpc": OPEN
    + """
        → {"id":5,"rpc":{"method":"ping"}}
        ← {"id":5,"rpc":{}}
        → {"id":29,"rpc":{"method":"getThing","data":{"id":1}}}
        ← {"id":29,"error":{"code":104,"message":"method not found"}}
        → {"id":30,"rpc":{"method":"echo","data":{"id": 1}}}
        ← {"id":30,"rpc":{"data":{"id": 1}}}
    """,
    "37 send without a handler": OPEN
    + """
        → {"send":{"data":{"x":1}}}
        ■ 3508 not available
    """,
    "37 unknown command": OPEN + '→ {"id":2,"foo":{}}\n■ 3501 bad request',
    "37 request without channel": OPEN + '→ {"id":2,"subscribe":{}}\n■ 3501 bad request',
    "37 message above 64 KiB": OPEN + '→ {"id":2,"rpc":{"method":"' + "x" * 65536 + '"}}\n■ 1009',
    "15 a publication of a stream; only offset 1 carries the epoch": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"stream:15"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        → {"id":3,"publish":{"channel":"stream:15","data":{"text":"hi"}}}
        ← {"id":3,"publish":{}}
        ← {"push":{"channel":"stream:15","pub":{"data":{"text":"hi"},"info":{"user":"42","client":"<A>"},"offset":1,"epoch":"<E1>"}}}
        → {"id":4,"publish":{"channel":"stream:15","data":{"t": "<b>&é"  , "n":1.0}}}
        ← {"id":4,"publish":{}}
        ← {"push":{"channel":"stream:15","pub":{"data":{"t": "<b>&é"  , "n":1.0},"info":{"user":"42","client":"<A>"},"offset":2}}}
    """,
    "19 history": _published("stream:19", 3)
    + """
        → {"id":2,"subscribe":{"channel":"stream:19"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":3,"positioned":true}}
        → {"id":4,"history":{"channel":"stream:19"}}
        ← {"id":4,"history":{"publications":[],"epoch":"<E1>","offset":3}}
        → {"id":5,"history":{"channel":"stream:19","limit":2}}
        ← {"id":5,"history":{"publications":[PUB(1,<E1>),PUB(2)],"epoch":"<E1>","offset":3}}
        → {"id":6,"history":{"channel":"stream:19","limit":2,"reverse":true}}
        ← {"id":6,"history":{"publications":[PUB(3),PUB(2)],"epoch":"<E1>","offset":3}}
        → {"id":7,"history":{"channel":"stream:19","limit":10,"since":{"offset":1,"epoch":"<E1>"}}}
        ← {"id":7,"history":{"publications":[PUB(2),PUB(3)],"epoch":"<E1>","offset":3}}
        → {"id":8,"history":{"channel":"stream:19","limit":10,"since":{"offset":3,"epoch":"<E1>"},"reverse":true}}
        ← {"id":8,"history":{"publications":[PUB(2),PUB(1,<E1>)],"epoch":"<E1>","offset":3}}
        → {"id":9,"history":{"channel":"stream:19","limit":10,"since":{"offset":1,"epoch":"zzzz"}}}
        ← {"id":9,"error":{"code":112,"message":"unrecoverable position"}}
        → {"id":10,"history":{"channel":"stream:19","limit":1,"since":{},"reverse":true}}
        ← {"id":10,"error":{"code":107,"message":"bad request"}}
        → {"id":11,"history":{"channel":"stream:19","limit":-1}}
        ← {"id":11,"history":{"publications":[PUB(1,<E1>),PUB(2),PUB(3)],"epoch":"<E1>","offset":3}}
    """,
    "19 history that is off, not allowed, or nowhere": OPEN
    + """
        → {"id":2,"history":{"channel":"plain","limit":1}}
        ← {"id":2,"error":{"code":108,"message":"not available"}}
        → {"id":3,"history":{"channel":"stream:not subscribed","limit":1}}
        ← {"id":3,"error":{"code":103,"message":"permission denied"}}
        → {"id":4,"history":{"channel":"nope:x","limit":1}}
        ← {"id":4,"error":{"code":102,"message":"unknown channel"}}
        → {"id":5,"subscribe":{"channel":"off:x"}}
        ← {"id":5,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        → {"id":6,"history":{"channel":"off:x","limit":1}}
        ← {"id":6,"error":{"code":103,"message":"permission denied"}}
        → {"id":7,"history":{"limit":1}}
        ■ 3501 bad request
    """,
    "20 recover: two missed; none missed; from 0": _published("stream:20", 3)
    + """
        → {"id":2,"subscribe":{"channel":"stream:20","recover":true,"offset":1}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","publications":[PUB(2),PUB(3)],"recovered":true,"offset":1,"positioned":true,"was_recovering":true}}
        → {"id":3,"unsubscribe":{"channel":"stream:20"}}
        ← {"id":3,"unsubscribe":{}}
        → {"id":4,"subscribe":{"channel":"stream:20","recover":true,"offset":3,"epoch":"<E1>"}}
        ← {"id":4,"subscribe":{"recoverable":true,"epoch":"<E1>","recovered":true,"offset":3,"positioned":true,"was_recovering":true}}
        → {"id":5,"unsubscribe":{"channel":"stream:20"}}
        ← {"id":5,"unsubscribe":{}}
        → {"id":6,"subscribe":{"channel":"stream:20","recover":true}}
        ← {"id":6,"subscribe":{"recoverable":true,"epoch":"<E1>","publications":[PUB(1,<E1>),PUB(2),PUB(3)],"recovered":true,"positioned":true,"was_recovering":true}}
    """,
    "21 recover fails: wrong epoch, ahead of the top, with flag 2": _published("stream:21", 3)
    + """
        → {"id":2,"subscribe":{"channel":"stream:21","recover":true,"offset":1,"epoch":"abcdefgh","flag":3}}
        ← {"id":2,"error":{"code":112,"message":"unrecoverable position"}}
        → {"id":3,"subscribe":{"channel":"stream:21","recover":true,"offset":1,"epoch":"abcdefgh"}}
        ← {"id":3,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":3,"positioned":true,"was_recovering":true}}
        → {"id":4,"unsubscribe":{"channel":"stream:21"}}
        ← {"id":4,"unsubscribe":{}}
        → {"id":5,"subscribe":{"channel":"stream:21","recover":true,"offset":50,"epoch":"<E1>"}}
        ← {"id":5,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":3,"positioned":true,"was_recovering":true}}
    """,
    "22 history_size 5, top 9: offset 4 recovers, offset 3 does not": _published("stream:22", 9)
    + """
        → {"id":2,"subscribe":{"channel":"stream:22","recover":true,"offset":3}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":9,"positioned":true,"was_recovering":true}}
        → {"id":3,"unsubscribe":{"channel":"stream:22"}}
        ← {"id":3,"unsubscribe":{}}
        → {"id":4,"subscribe":{"channel":"stream:22","recover":true,"offset":4,"epoch":"<E1>"}}
        ← {"id":4,"subscribe":{"recoverable":true,"epoch":"<E1>","publications":[PUB(5),PUB(6),PUB(7),PUB(8),PUB(9)],"recovered":true,"offset":4,"positioned":true,"was_recovering":true}}
    """,
    "23 after history_remove, at the top and one behind": _published("stream:23", 3)
    + """
        ! history_remove {"channel":"stream:23"}
        → {"id":2,"subscribe":{"channel":"stream:23","recover":true,"offset":3}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","recovered":true,"offset":3,"positioned":true,"was_recovering":true}}
        → {"id":3,"unsubscribe":{"channel":"stream:23"}}
        ← {"id":3,"unsubscribe":{}}
        → {"id":4,"subscribe":{"channel":"stream:23","recover":true,"offset":2,"epoch":"<E1>"}}
        ← {"id":4,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":3,"positioned":true,"was_recovering":true}}
    """,
    "24 positioned and recoverable wishes; recover without recovery": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"pos:x","positioned":true}}
        ← {"id":2,"subscribe":{"epoch":"<E1>","positioned":true}}
        → {"id":3,"subscribe":{"channel":"pos:y","recoverable":true}}
        ← {"id":3,"subscribe":{"recoverable":true,"epoch":"<E2>","positioned":true}}
        → {"id":4,"subscribe":{"channel":"plain","recover":true,"offset":1,"epoch":"x","positioned":true}}
        ← {"id":4,"subscribe":{"was_recovering":true}}
        → {"id":5,"unsubscribe":{"channel":"plain"}}
        ← {"id":5,"unsubscribe":{}}
        → {"id":6,"subscribe":{"channel":"pos:z"}}
        ← {"id":6,"subscribe":{}}
    """,
    "25 cache mode: no position; same state; empty stream": _published("cache:c", 2)
    + """
        → {"id":2,"subscribe":{"channel":"cache:c","recover":true}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","publications":[PUB(2)],"recovered":true,"positioned":true,"was_recovering":true}}
        → {"id":3,"unsubscribe":{"channel":"cache:c"}}
        ← {"id":3,"unsubscribe":{}}
        → {"id":4,"subscribe":{"channel":"cache:c","recover":true,"offset":2,"epoch":"<E1>"}}
        ← {"id":4,"subscribe":{"recoverable":true,"epoch":"<E1>","recovered":true,"offset":2,"positioned":true,"was_recovering":true}}
        → {"id":5,"subscribe":{"channel":"cache:empty","recover":true}}
        ← {"id":5,"subscribe":{"recoverable":true,"epoch":"<E2>","positioned":true,"was_recovering":true}}
    """,
    "3.6 auto_cache_recover gives the latest to everybody": _published("auto:c", 2)
    + """
        → {"id":2,"subscribe":{"channel":"auto:c"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","publications":[PUB(2)],"recovered":true,"positioned":true,"was_recovering":true}}
    """,
    "2.8 publish debounce is told in milliseconds": OPEN_NAMED
    + """
        → {"id":2,"subscribe":{"channel":"eased:c"}}
        ← {"id":2,"subscribe":{"publish_debounce":250}}
    """,
    "32 reconnect with positions: recovered; and with a wrong epoch": """
        → {"id":1,"connect":{"token":"JWT(server-side stream)"}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","subs":{"stream:32":{"recoverable":true,"epoch":"<E1>","positioned":true}},"ping":5,"pong":true}}
        → {"id":2,"publish":{"channel":"stream:32","data":{"n": 1}}}
        ← {"id":2,"publish":{}}
        ← {"push":{"channel":"stream:32","pub":PUB(1,<E1>)}}
        B: → {"id":1,"connect":{"token":"JWT(server-side stream)","subs":{"stream:32":{"recover":true,"epoch":"<E1>"}}}}
        B: ← {"id":1,"connect":{"client":"<B>","version":"V","subs":{"stream:32":{"recoverable":true,"epoch":"<E1>","publications":[PUB(1,<E1>)],"recovered":true,"positioned":true,"was_recovering":true}},"ping":5,"pong":true}}
        C: → {"id":1,"connect":{"token":"JWT(server-side stream)","subs":{"stream:32":{"recover":true,"epoch":"x"}}}}
        C: ← {"id":1,"connect":{"client":"<C>","version":"V","subs":{"stream:32":{"recoverable":true,"epoch":"<E1>","offset":1,"positioned":true,"was_recovering":true}},"ping":5,"pong":true}}
    """,
    "8 connect and subscribe in one frame; own join follows": """
        → {"id":1,"connect":{"token":"JWT(42)"}} ‖ {"id":2,"subscribe":{"channel":"room:8","flag":1}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","ping":5,"pong":true}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ← {"push":{"channel":"room:8","join":{"info":{"user":"42","client":"<A>"}}}}
    """,
    "11 a join tells connection's and channel's info": OPEN_NAMED
    + """
        → {"id":11,"subscribe":{"channel":"$room:x","token":"JWT($room:x)"}}
        ← {"id":11,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true,"data":{"hello":1}}}
        ← {"push":{"channel":"$room:x","join":{"info":{"user":"42","client":"<A>","conn_info":{"name":"Alice"},"chan_info":{"role":"admin"}}}}}
    """,
    "18 presence and stats; presence off; not subscribed": OPEN_NAMED
    + """
        → {"id":2,"subscribe":{"channel":"room:18"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ← {"push":{"channel":"room:18","join":{"info":{"user":"42","client":"<A>","conn_info":{"name":"Alice"}}}}}
        → {"id":24,"presence":{"channel":"room:18"}} ‖ {"id":25,"presence_stats":{"channel":"room:18"}}
        ← {"id":24,"presence":{"presence":{"<A>":{"user":"42","client":"<A>","conn_info":{"name":"Alice"}}}}}
        ← {"id":25,"presence_stats":{"num_clients":1,"num_users":1}}
        → {"id":26,"presence":{"channel":"plain"}}
        ← {"id":26,"error":{"code":108,"message":"not available"}}
        → {"id":27,"presence":{"channel":"room:other"}}
        ← {"id":27,"error":{"code":103,"message":"permission denied"}}
        → {"id":28,"presence_stats":{"channel":"nope:x"}}
        ← {"id":28,"error":{"code":102,"message":"unknown channel"}}
        → {"id":29,"presence":{}}
        ■ 3501 bad request
    """,
    "26 the others see who comes and goes": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"room:26"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ← {"push":{"channel":"room:26","join":{"info":{"user":"42","client":"<A>"}}}}
    """
    + OPEN_B
    + """
        B: → {"id":2,"subscribe":{"channel":"room:26"}}
        B: ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        B: ← {"push":{"channel":"room:26","join":{"info":{"user":"43","client":"<B>"}}}}
        ← {"push":{"channel":"room:26","join":{"info":{"user":"43","client":"<B>"}}}}
        B: → {"id":3,"unsubscribe":{"channel":"room:26"}}
        B: ← {"id":3,"unsubscribe":{}}
        ← {"push":{"channel":"room:26","leave":{"info":{"user":"43","client":"<B>"}}}}
        B: → {"id":4,"subscribe":{"channel":"room:26"}}
        B: ← {"id":4,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        B: ← {"push":{"channel":"room:26","join":{"info":{"user":"43","client":"<B>"}}}}
        ← {"push":{"channel":"room:26","join":{"info":{"user":"43","client":"<B>"}}}}
        → {"id":5,"presence_stats":{"channel":"room:26"}}
        ← {"id":5,"presence_stats":{"num_clients":2,"num_users":2}}
        B: → {"id":6,"foo":{}}
        B: ■ 3501 bad request
        ← {"push":{"channel":"room:26","leave":{"info":{"user":"43","client":"<B>"}}}}
    """,
    "31 server-side subscriptions from the token; own join; client-side subscribe to one": """
        → {"id":1,"connect":{"token":"JWT(server-side room)"}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","subs":{"room:31":{"recoverable":true,"epoch":"<E1>","positioned":true},"plain":{}},"ping":5,"pong":true}}
        ← {"push":{"channel":"room:31","join":{"info":{"user":"42","client":"<A>"}}}}
        → {"id":2,"subscribe":{"channel":"room:31"}}
        ← {"id":2,"error":{"code":105,"message":"already subscribed"}}
    """,
    "3.4 joins are pushed to those who ask for them and may read the presence": OPEN
    + OPEN_B
    + """
        → {"id":2,"subscribe":{"channel":"asked:x","join_leave":true}}
        ← {"id":2,"subscribe":{}}
        ← {"push":{"channel":"asked:x","join":{"info":{"user":"42","client":"<A>"}}}}
        B: → {"id":2,"subscribe":{"channel":"asked:x"}}
        B: ← {"id":2,"subscribe":{}}
        ← {"push":{"channel":"asked:x","join":{"info":{"user":"43","client":"<B>"}}}}
        → {"id":3,"unsubscribe":{"channel":"asked:x"}}
        ← {"id":3,"unsubscribe":{}}
        → {"id":4,"subscribe":{"channel":"secret:x","join_leave":true}}
        ← {"id":4,"subscribe":{}}
        B: → {"id":3,"subscribe":{"channel":"secret:x","join_leave":true}}
        B: ← {"id":3,"subscribe":{}}
        → {"id":5,"rpc":{"method":"ping"}}
        ← {"id":5,"rpc":{}}
        B: → {"id":4,"rpc":{"method":"ping"}}
        B: ← {"id":4,"rpc":{}}
    """,
    "33 the server subscribes, unsubscribes and refreshes a connected client": OPEN_EXPIRING
    + """
        ! subscribe {"channel":"plain","data":{"x": 1}}
        ← {"push":{"channel":"plain","subscribe":{"data":{"x": 1}}}}
        ! subscribe {"channel":"stream:33"}
        ← {"push":{"channel":"stream:33","subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}}
        → {"id":2,"subscribe":{"channel":"stream:33"}}
        ← {"id":2,"error":{"code":105,"message":"already subscribed"}}
        ! unsubscribe {"channel":"plain"}
        ← {"push":{"channel":"plain","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}}
        ! unsubscribe {"channel":"plain"}
        ! refresh {"expires_in":996}
        ← {"push":{"refresh":{"expires":true,"ttl":996}}}
        ! refresh {"expired":true}
        ■ 3005 connection expired
    """,
    "33 a server-side subscription with a position to recover from": _published("stream:33b", 2)
    + """
        ! subscribe {"channel":"stream:33b","recover_since":{"offset":1,"epoch":""}}
        ← {"push":{"channel":"stream:33b","subscribe":{"recoverable":true,"epoch":"<E1>","offset":1,"positioned":true}}}
        ← {"push":{"channel":"stream:33b","pub":PUB(2)}}
    """,
    "34 the server disconnects: default": OPEN
    + """
        ! disconnect {}
        ■ 3503 force disconnect
    """,
    "34 the server disconnects: with a code and reason of its own": OPEN
    + """
        ! disconnect {"disconnect":{"code":4001,"reason":"bye"}}
        ■ 4001 bye
    """,
    "39 publications with tags, with a version, without history": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"stream:39"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ! publish {"channel":"stream:39","data":{"a": 1},"tags":{"k":"v"}}
        = 200 {"result":{"offset":1,"epoch":"<E1>"}}
        ← {"push":{"channel":"stream:39","pub":{"data":{"a": 1},"offset":1,"tags":{"k":"v"},"epoch":"<E1>"}}}
        ! publish {"channel":"stream:39","data":{"a": 3},"version":5}
        = 200 {"result":{"offset":2,"epoch":"<E1>"}}
        ← {"push":{"channel":"stream:39","pub":{"data":{"a": 3},"offset":2,"version":5}}}
        ! publish {"channel":"stream:39","data":{"a": 2},"version":4}
        = 200 {"result":{"offset":2,"epoch":"<E1>"}}
        ! publish {"channel":"stream:39","data":{"n": "skip"},"skip_history":true}
        = 200 {"result":{}}
        ← {"push":{"channel":"stream:39","pub":{"data":{"n": "skip"}}}}
    """,
    "39 a tags filter": OPEN
    + """
        → {"id":3,"subscribe":{"channel":"tags:39","tf":{"key":"k","cmp":"eq","val":"1"}}}
        ← {"id":3,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ! publish {"channel":"tags:39","data":{"x": 0},"tags":{"k":"2"}}
        = 200 {"result":{"offset":1,"epoch":"<E1>"}}
        ! publish {"channel":"tags:39","data":{"x": 1},"tags":{"k":"1"}}
        = 200 {"result":{"offset":2,"epoch":"<E1>"}}
        ← {"push":{"channel":"tags:39","pub":{"data":{"x": 1},"offset":2,"tags":{"k":"1"}}}}
    """,
    "39 a tags filter, refused": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"stream:39c","tf":{"key":"k","cmp":"eq","val":"1"}}}
        ← {"id":2,"error":{"code":107,"message":"bad request"}}
        → {"id":3,"subscribe":{"channel":"tags:39c","tf":{"op":"not"}}}
        ← {"id":3,"error":{"code":107,"message":"bad request"}}
    """,
    "45 HTTP API": """
        ! publish {"channel":"room:45","data":{"a":1},"tags":{"k":"v"}}
        = 200 {"result":{"offset":1,"epoch":"<E1>"}}
        ! publish {"channel":"nope:x","data":{}}
        = 200 {"error":{"code":102,"message":"unknown channel"}}
        ! transport:publish {"channel":"nope:x","data":{}}
        = 404 {"code":102,"message":"unknown channel"}
        ! publish {"channel":"room:45","data":{"a":2}}
        = 200 {"result":{"offset":2,"epoch":"<E1>"}}
        ! broadcast {"channels":["room:45","plain","nope:x"],"data":{"b":1}}
        = 200 {"result":{"responses":[{"result":{"offset":3,"epoch":"<E1>"}},{"result":{}},{"error":{"code":102,"message":"unknown channel"}}]}}
        ! history {"channel":"room:45","limit":2}
        = 200 {"result":{"publications":[{"data":{"a":1},"offset":1,"tags":{"k":"v"}},{"data":{"a":2},"offset":2}],"epoch":"<E1>","offset":3}}
        → {"id":1,"connect":{"token":"JWT(42)"}} ‖ {"id":2,"subscribe":{"channel":"room:45"}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","ping":5,"pong":true}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","offset":3,"positioned":true}}
        ! batch {"commands":[{"publish":{"channel":"plain","data":{}}},{"presence_stats":{"channel":"room:45"}},{"nope":{}}],"parallel":true}
        = 200 {"replies":[{"publish":{}},{"presence_stats":{"num_clients":1,"num_users":1}},{"error":{"code":104,"message":"not found"}}]}
        ! presence {"channel":"room:45"}
        = 200 {"result":{"presence":{"<A>":{"user":"42","client":"<A>"}}}}
        ! batch {"commands":[]}
        = 200 {}
    """,
    "45 HTTP API: what is off, and what nobody has": """
        ! presence {"channel":"plain"}
        = 200 {"error":{"code":108,"message":"not available"}}
        ! transport:history {"channel":"plain"}
        = 400 {"code":108,"message":"not available"}
        ! publish {"channel":"","data":{}}
        = 200 {"error":{"code":107,"message":"bad request"}}
        ! publish {"channel":"plain"}
        = 200 {"error":{"code":107,"message":"bad request"}}
        ! transport:history {"channel":"room:45n","since":{"offset":1,"epoch":"x"}}
        = 416 {"code":112,"message":"unrecoverable position"}
        ! rpc {"method":"nope"}
        = 200 {"error":{"code":104,"message":"not found"}}
        ! presence {"channel":"room:45n"}
        = 200 {"result":{"presence":{}}}
        ! channels {"pattern":"nobody-is-here-*"}
        = 200 {"result":{"channels":{}}}
        ! disconnect {"user":"nobody"}
        ! unsubscribe {"user":"nobody","channel":"plain"}
    """,
    "35 lost position of a client-side subscription": OPEN
    + """
        → {"id":2,"subscribe":{"channel":"stream:35"}}
        ← {"id":2,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
        ! forget stream:35
        ← {"push":{"channel":"stream:35","unsubscribe":{"code":2500,"reason":"insufficient state"}}}
        → {"id":3,"subscribe":{"channel":"stream:35"}}
        ← {"id":3,"subscribe":{"recoverable":true,"epoch":"<E1>","positioned":true}}
    """,
    "35 lost position of a server-side subscription": """
        → {"id":1,"connect":{"token":"JWT(server-side 35)"}}
        ← {"id":1,"connect":{"client":"<A>","version":"V","subs":{"stream:35s":{"recoverable":true,"epoch":"<E1>","positioned":true}},"ping":5,"pong":true}}
        ! forget stream:35s
        ■ 3010 insufficient state
    """,
    "3.1 a second connect": OPEN + '→ {"id":2,"connect":{"token":"JWT(42)"}}\n■ 3501 bad request',
    "3.1 no connect in time": """
        + 10
        ■ 3502 stale
    """,
    "1.3 one trailing newline and blanks around a line are fine": OPEN
    + """
        → {"id":2,"rpc":{"method":"ping"}} ‖
        ← {"id":2,"rpc":{}}
    """,
    "1.3 an empty line is not": OPEN
    + """
        → {"id":2,"rpc":{"method":"ping"}} ‖ ‖ {"id":3,"rpc":{"method":"ping"}}
        ■ 3501 bad request
    """,
    "1.2 replies that are ready go out before the close": OPEN
    + """
        → {"id":2,"rpc":{"method":"ping"}} ‖ {"id":3,"foo":{}}
        ← {"id":2,"rpc":{}}
        ■ 3501 bad request
    """,
}


class _Player:
    """Plays a script against a node."""

    def __init__(self, node: RunningNode, wire: Wire, stack: AsyncExitStack) -> None:
        self._node = node
        self._wire = wire
        self._stack = stack
        self._clients: dict[str, Talker] = {}
        self._ids: dict[str, str] = {}
        self._lines: dict[str, list[str]] = {}
        self._epochs: list[str] = []
        self._answer = _DONE
        """What the last call of the API was answered with, until a script has looked at it."""

    async def play(self, script: str) -> None:
        for who, what, text in _steps(script):
            if what != "=":
                assert self._answer == _DONE
            if who not in self._clients and what not in {"!", "="}:
                await self._open(who)
            match what:
                case "→":
                    await self._clients[who].send([self._with_tokens(each) for each in _commands(text)])
                case "←":
                    received = await self._receive(who, wants_ping=text == "{}")
                    assert _with_ttl_of(text, received) == _with_publications(text)
                case "■":
                    code, _, reason = text.partition(" ")
                    assert await self._closed(who) == (int(code), reason)
                case "!":
                    await self._do(*text.split(" ", 1))
                case "=":
                    assert self._masked("", self._answer) == text
                    self._answer = _DONE
                case _:
                    # A little more than was asked for: the node looks at its clock ten times a second.
                    self._node.clock.ahead_s += float(text)

    async def _open(self, who: str) -> None:
        self._clients[who] = await self._stack.enter_async_context(self._wire.open(self._node))
        self._lines[who] = []

    async def _do(self, what: str, argument: str) -> None:
        """Call the API, or `forget` a stream's epoch as a broker that lost everything does."""
        if what == "forget":
            services = self._node.node.services
            local = services.hub.get(argument)
            assert local is not None, argument
            assert local.track is not None, argument
            local.track.epoch = "another"
            services.intake.mend(local)
            self._answer = _DONE
            return
        mode, _, method = what.rpartition(":")
        now_s = round(time.time() + self._node.clock.ahead_s)
        body = _EXPIRES_IN.sub(lambda found: f'"expire_at":{now_s + int(found[1])}', argument)
        if method in _ABOUT_USERS and '"user"' not in body:
            body = body.replace("{", '{"user":"42",', 1).replace(",}", "}")
        headers = {"X-API-Key": API_KEY, "X-Centrifugo-Error-Mode": mode}
        async with httpx.AsyncClient(base_url=self._node.internal_url, timeout=DEADLINE_S) as client:
            response = await client.post(f"/api/{method}", content=body, headers=headers)
        self._answer = f"{response.status_code} {response.text}"

    async def _receive(self, who: str, *, wants_ping: bool) -> str:
        """Return the next message of a client, masked."""
        lines = self._lines[who]
        while True:
            while not lines:
                lines += await self._clients[who].receive()
            line = lines.pop(0)
            if line != "{}" or wants_ping:
                return self._masked(who, line)

    async def _closed(self, who: str) -> tuple[int, str]:
        with pytest.raises(EndedError) as ended:
            pytest.fail(f"instead of a close came {await self._receive(who, wants_ping=False)}")
        return ended.value.code, ended.value.reason

    def _masked(self, who: str, line: str) -> str:
        if who and who not in self._ids and (found := _CLIENT_ID.search(line)):
            self._ids[who] = found[0]
        for name, client in self._ids.items():
            line = line.replace(client, f"<{name}>")
        for epoch in _EPOCH.findall(line):
            if epoch not in self._epochs:
                self._epochs.append(epoch)
        for number, epoch in enumerate(self._epochs, 1):
            line = line.replace(epoch, f"<E{number}>")
        return _VERSION.sub('"version":"V"', line)

    def _with_tokens(self, line: str) -> str:
        for number, epoch in enumerate(self._epochs, 1):
            line = line.replace(f"<E{number}>", epoch)
        return re.sub(r"(JWT|FORGED)\(([^)]*)\)", lambda found: self._token(found[2], forged=found[1] != "JWT"), line)

    def _token(self, name: str, *, forged: bool) -> str:
        now_s = round(time.time() + self._node.clock.ahead_s)
        claims = {claim: now_s + value if claim in TIMES else value for claim, value in CLAIMS[name].items()}
        return jwt.encode(claims, SECRET[::-1] if forged else SECRET, algorithm="HS256")


def _with_ttl_of(expected: str, received: str) -> str:
    """Return *received* with the ttl of *expected*, if it is a few seconds less, which a loaded machine may take."""
    due, told = _TTL.search(expected), _TTL.search(received)
    if due is None or told is None or not 0 <= int(due[1]) - int(told[1]) <= _SLACK_S:
        return received
    return received.replace(told[0], due[0])


def _with_publications(line: str) -> str:
    """Write out `PUB(2)`: what A published as number 2, at that offset; with its epoch where that is given."""

    def written(found: re.Match[str]) -> str:
        number, epoch = found[1], f',"epoch":"{found[2]}"' if found[2] else ""
        return f'{{"data":{{"n": {number}}},"info":{{"user":"42","client":"<A>"}},"offset":{number}{epoch}}}'

    return _PUBLICATION.sub(written, line)


def _steps(script: str) -> Iterator[tuple[str, str, str]]:
    """Cut a script into (client, what, text)."""
    for line in script.splitlines():
        found = re.fullmatch(r"\s*(?:([ABC]): )?([→←■+!=]) ?(.*)", line)
        if found:
            yield found[1] or "A", found[2], found[3]
        else:
            assert not line.strip(), f"no step of a script: {line!r}"


def _commands(text: str) -> list[str]:
    """Return the commands that one step sends."""
    return [each.strip(" ") for each in text.split("‖")]


def _played_over(wire: Wire) -> list[str]:
    """Return the names of the scripts that *wire* can carry."""
    left_out = ONLY_IN_JSON if wire.encoding.is_binary else set()
    if isinstance(wire, StreamWire):
        left_out = left_out | ONLY_ON_WEBSOCKETS
    return [
        name
        for name, script in EXAMPLES.items()
        if name not in left_out
        and all(wire.encoding.can_carry(_commands(text)) for _, what, text in _steps(script) if what == "→")
    ]


WIRES: Final[dict[str, Wire]] = {
    "websocket-json": WebSocketWire(InJSON()),
    "websocket-protobuf": WebSocketWire(InProtobuf()),
    "http_stream-json": StreamWire(InJSON(), "/connection/http_stream"),
    "http_stream-protobuf": StreamWire(InProtobuf(), "/connection/http_stream"),
    "sse-get": StreamWire(InEvents(), "/connection/sse", method="GET"),
    "sse-post": StreamWire(InEvents(), "/connection/sse"),
}
# What carries an exchange has nothing to do with where its streams are, so not all meet each other.
PLACES: Final = (*((name, "memory") for name in WIRES), *((name, "redis") for name in list(WIRES)[:3]))


class _Places:
    """One node for all scripts over a wire: each has connections of its own, and the clock only moves forward."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._nodes: dict[tuple[str, str], RunningNode] = {}

    async def node(self, wire: str, engine: str) -> RunningNode:
        """Return the node of that place, started when it is asked for first."""
        if (wire, engine) not in self._nodes:
            table: dict[str, Any] = {"broker": {"type": engine}}
            if engine == "redis":
                server = await self._stack.enter_async_context(redis_server())
                table["redis"] = {"address": server.location}
            node = await self._stack.enter_async_context(running_node(SETTINGS, table))
            self._nodes[wire, engine] = node
        return self._nodes[wire, engine]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def places() -> AsyncIterator[_Places]:
    """Have nodes, as many as are asked for."""
    async with AsyncExitStack() as stack:
        yield _Places(stack)


@pytest.fixture(scope="module", autouse=True)
def _summary(request: pytest.FixtureRequest) -> None:
    """Have the end of the run say which exchanges were played."""

    class Summary:
        def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
            numbers = sorted({int(name.split()[0]) for name in EXAMPLES if name.split()[0].isdigit()})
            played = ", ".join(map(str, numbers))
            wires = ", ".join(f"{len(_played_over(wire))} over {name}" for name, wire in WIRES.items())
            told = f"{len(EXAMPLES)} scripts, {wires}"
            terminalreporter.write_line(f"exchanges of protocol.md 9: {told}, numbers {played}")

    request.config.pluginmanager.register(Summary(), "exchanges")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("wire", "engine", "name"),
    [(wire, engine, name) for wire, engine in PLACES for name in _played_over(WIRES[wire])],
)
async def test_the_exchange_goes_as_the_protocol_says(places: _Places, wire: str, engine: str, name: str) -> None:
    node = await places.node(wire, engine)
    async with AsyncExitStack() as stack:
        await _Player(node, WIRES[wire], stack).play(EXAMPLES[name])


def test_tokens_of_the_examples_are_all_used() -> None:
    scripts = "".join(EXAMPLES.values())
    unused = [name for name in CLAIMS if f"JWT({name})" not in scripts and f"FORGED({name})" not in scripts]
    assert unused == []
