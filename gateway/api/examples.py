"""Calls to begin with, for the documentation; each can be sent as it is."""

from typing import Any, Final

EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "publish": {
        "a value": {"channel": "news:today", "data": {"text": "hello"}},
        "once, whoever repeats it": {"channel": "news:today", "data": {"order": 7}, "idempotency_key": "order-7"},
        "only if newer": {"channel": "prices", "data": {"price": 21.5}, "version": 1795195485, "version_epoch": "a"},
        "bytes": {"channel": "binary:image", "b64data": "AAEC"},
    },
    "broadcast": {"to several channels": {"channels": ["news:today", "news:sports"], "data": {"text": "hello"}}},
    "subscribe": {"a user": {"user": "42", "channel": "news:today"}},
    "unsubscribe": {"a user": {"user": "42", "channel": "news:today"}},
    "disconnect": {
        "a user": {"user": "42"},
        "for a reason of your own": {"user": "42", "disconnect": {"code": 4501, "reason": "subscription ended"}},
    },
    "refresh": {"until a time": {"user": "42", "expire_at": 1795195485}, "expired": {"user": "42", "expired": True}},
    "presence": {"who": {"channel": "news:today"}},
    "presence_stats": {"how many": {"channel": "news:today"}},
    "history": {
        "the newest ten": {"channel": "news:today", "limit": 10, "reverse": True},
        "what came after": {"channel": "news:today", "limit": 100, "since": {"offset": 7, "epoch": "fioiLpkC"}},
        "the position alone": {"channel": "news:today"},
    },
    "history_remove": {"all of it": {"channel": "news:today"}},
    "info": {"all nodes": {}},
    "channels": {"all": {}, "by a glob": {"pattern": "news:*"}},
    "rpc": {"a handler": {"method": "ping", "params": {}}},
    "connections": {
        "of a user": {"user": "42"},
        "in a channel": {"channel": "news:today", "limit": 10},
        "the next page": {"channel": "news:today", "limit": 10, "cursor": "09663c45-…"},
    },
    "drain": {"this node": {}, "another one": {"node": "node2"}},
    "batch": {
        "several calls": {
            "commands": [
                {"publish": {"channel": "news:today", "data": {"text": "hello"}}},
                {"presence_stats": {"channel": "news:today"}},
            ],
            "parallel": True,
        }
    },
}
