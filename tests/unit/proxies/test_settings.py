"""Proxies in a configuration: what is said about a bad one, and which are in use."""

from typing import Any

import pytest

from gateway.config import ConfigError, load, merge
from gateway.proxies.events import Kind

URL = "http://127.0.0.1:3000/x"
NAMED = {"name": "shop", "endpoint": URL}


def faults(*tables: dict[str, Any], **sources: Any) -> list[str]:
    values: dict[str, Any] = {}
    for table in tables:
        values = merge(values, table)
    with pytest.raises(ConfigError) as caught:
        load(base=values, **sources)
    return caught.value.faults


def connect(**settings: Any) -> dict[str, Any]:
    return {"client": {"proxy": {"connect": {"enabled": True, "endpoint": URL, **settings}}}}


def namespace(**options: Any) -> dict[str, Any]:
    return {"channel": {"namespaces": [{"name": "chat", **options}]}}


WHERE = "client.proxy.connect"


@pytest.mark.parametrize(
    ("table", "line"),
    [
        # Endpoints.
        ({"client": {"proxy": {"connect": {"enabled": True}}}}, f"{WHERE}: enabled, but without an endpoint"),
        (
            connect(endpoint="127.0.0.1:3000"),
            f"{WHERE}.endpoint = '127.0.0.1:3000': must be a URL such as http://127.0.0.1:3000/centrifugo/connect",
        ),
        (connect(endpoint="grpc://shop:9000"), "there is no gRPC here: give an http:// or https:// address"),
        (
            connect(endpoint="http://u:secret@shop/x"),
            f"{WHERE}.endpoint = 'http://(hidden)@shop/x': holds a user or a password: give them as a header, in http.",
        ),
        (connect(endpoint="http:///x"), "must be a URL such as"),
        (connect(endpoint="http://shop:99999/x"), "must be a URL such as"),
        (connect(endpoint="http://sh op/x"), "must be a URL such as"),
        (connect(endpoint="http://shop/x#y"), "must be a URL such as"),
        (connect(endpoint="ftp://shop/x"), "must be a URL such as"),
        (connect(endpoint="http://[::1/x"), "must be a URL such as"),
        # Names.
        (
            namespace(subscribe_proxy_enabled=True),
            "channel.namespaces[chat].subscribe_proxy_enabled is set, and channel.proxy.subscribe has no endpoint",
        ),
        (
            {"channel": {"without_namespace": {"sub_refresh_proxy_enabled": True}}},
            "channel.without_namespace.sub_refresh_proxy_enabled is set, and channel.proxy.sub_refresh has no endpoint",
        ),
        (
            namespace(publish_proxy_enabled=True, publish_proxy_name="shpo") | {"proxies": [NAMED]},
            "channel.namespaces[chat].publish_proxy_name = 'shpo': there is 'default', 'shop'",
        ),
        (
            {"rpc": {"without_namespace": {"proxy_enabled": True}}},
            "rpc.without_namespace.proxy_enabled is set, and rpc.proxy has no endpoint",
        ),
        (
            {"rpc": {"namespaces": [{"name": "sun", "proxy_enabled": True, "proxy_name": "moon"}]}},
            "rpc.namespaces[sun].proxy_name = 'moon': there is 'default'",
        ),
        ({"rpc": {"namespaces": [{"name": "sun"}, {"name": "sun"}]}}, "rpc: each namespace once, please: sun is"),
        ({"proxies": [NAMED, NAMED]}, "proxies: each name once, please: shop is there more than once"),
        ({"proxies": [NAMED | {"name": "default"}]}, "proxies.0: name: 'default' is what namespaces call the proxies"),
        ({"proxies": [{"name": "shop"}]}, "proxies.0: proxy 'shop' has no endpoint"),
        ({"proxies": [{"endpoint": URL}]}, "proxies.0.name: is missing"),
        ({"proxies": [NAMED | {"name": "x"}]}, "proxies.0.name = 'x': "),
        ({"proxies": [NAMED | {"timeuot": "1s"}]}, "proxies.0.timeuot: there is no such key; did you mean timeout?"),
        # Headers.
        (connect(http_headers=["Cookie", "Host"]), f"{WHERE}.http_headers.1 = 'Host': 'Host' belongs to the gateway's"),
        (connect(emulated_headers=["content-LENGTH"]), "belongs to the gateway's own request and can't be given"),
        (connect(http_headers=["no name"]), "'no name' is no name of a header"),
        (connect(http={"static_headers": {"Transfer-Encoding": "x"}}), "belongs to the gateway's own request"),
        (
            connect(http={"static_headers": {"X-Key": "a\r\nX-Other: b"}}),
            f"{WHERE}.http.static_headers: the value of 'X-Key' has other characters than printable ASCII",
        ),
        # Statuses.
        (
            connect(http={"status_to_code_transforms": [{"status_code": 404}]}),
            "status 404: give to_error.code or to_disconnect.code, one of them",
        ),
        (
            connect(
                http={
                    "status_to_code_transforms": [
                        {"status_code": 404, "to_error": {"code": 1}, "to_disconnect": {"code": 4000}}
                    ]
                }
            ),
            "status 404: give to_error.code or to_disconnect.code, one of them",
        ),
        (
            connect(http={"status_to_code_transforms": [{"status_code": 200, "to_error": {"code": 1}}]}),
            "status_code: an answer with status 200 says itself what it means",
        ),
        (
            connect(http={"status_to_code_transforms": [{"status_code": 404, "to_disconnect": {"code": 404}}]}),
            "disconnect.code is 404, and 3000 to 4999 are codes",
        ),
        (
            connect(http={"status_to_code_transforms": [{"status_code": 404, "to_error": {"code": 1}}] * 2}),
            "status_to_code_transforms: 404 is there more than once",
        ),
        # The rest.
        (connect(timeout="0s"), f"{WHERE}.timeout = '0s': "),
        (connect(breaker={"pause": "60s"}), f"{WHERE}.breaker: max_pause is shorter than pause"),
        (connect(http={"tls": {"cert_pem_file": "x.pem"}}), "cert_pem_file and key_pem_file go together"),
        (connect(grpc_metadata=["x"]), f"{WHERE}.grpc_metadata: there is no such key"),
    ],
)
def test_a_bad_proxy_is_one_line_that_says_what_is_wrong(table: dict[str, Any], line: str) -> None:
    (said,) = faults(table)
    assert line in said
    assert "secret" not in said


def test_each_namespace_that_names_a_proxy_in_vain_has_its_line() -> None:
    table = {
        "channel": {
            "namespaces": [
                {"name": "aa", "subscribe_proxy_enabled": True, "subscribe_proxy_name": "x1"},
                {"name": "bb", "publish_proxy_enabled": True},
            ]
        }
    }
    assert len(faults(table)) == 2


def test_what_is_switched_off_may_name_anything_and_is_not_used() -> None:
    table = {
        "channel": {"namespaces": [{"name": "aa", "subscribe_proxy_name": "nobody"}]},
        "client": {"proxy": {"refresh": {"endpoint": URL}}},
        "rpc": {"proxy": {"endpoint": URL}},
    }
    assert load(base=table).proxy_wishes.wanted() == {}


def test_each_proxy_in_use_is_there_once_for_each_event_that_asks_it() -> None:
    shop = {"subscribe_proxy_name": "shop", "subscribe_proxy_enabled": True}
    config = load(
        base={
            "proxies": [NAMED, {"name": "unused", "endpoint": URL}],
            "channel": {
                "proxy": {"publish": {"endpoint": URL}},
                "namespaces": [
                    {"name": "aa", **shop, "publish_proxy_enabled": True},
                    {"name": "bb", **shop, "publish_proxy_enabled": True, "publish_proxy_name": "shop"},
                ],
            },
            "client": {"proxy": {"connect": {"enabled": True, "endpoint": URL}}},
            "rpc": {"namespaces": [{"name": "sun", "proxy_enabled": True, "proxy_name": "shop"}]},
        }
    )
    assert set(config.proxy_wishes.wanted()) == {
        (Kind.CONNECT, "default"),
        (Kind.SUBSCRIBE, "shop"),
        (Kind.PUBLISH, "default"),
        (Kind.PUBLISH, "shop"),
        (Kind.RPC, "shop"),
    }


def test_proxies_may_come_from_the_environment() -> None:
    config = load(
        environment={
            "GATEWAY_PROXIES": f'[{{"name": "shop", "endpoint": "{URL}"}}]',
            "GATEWAY_RPC__PROXY__ENDPOINT": URL,
            "GATEWAY_RPC__PROXY__HTTP_HEADERS": "Cookie, Origin",
            "GATEWAY_RPC__PROXY__HTTP__STATIC_HEADERS": '{"X-Key": "1"}',
            "GATEWAY_RPC__PROXY__TIMEOUT": "250ms",
            # What Kubernetes injects for a service of the name "gateway-proxies" or "gateway" is none of it.
            "GATEWAY_PROXIES_PORT": "tcp://10.0.0.1:80",
            "GATEWAY_PORT": "tcp://10.0.0.1:80",
        }
    )
    assert [each.name for each in config.proxies] == ["shop"]
    proxy = config.rpc.proxy
    assert (proxy.http_headers, proxy.http.static_headers) == (["Cookie", "Origin"], {"X-Key": "1"})
    assert proxy.timeout_s == 0.25


def test_no_message_shows_a_static_header() -> None:
    assert "hidden-key" not in repr(load(base=connect(http={"static_headers": {"X-Key": "hidden-key"}})))
