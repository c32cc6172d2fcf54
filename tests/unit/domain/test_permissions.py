"""The whole truth table of who may do what, against a statement of protocol.md 3.4 and 3.5 of its own."""

from collections.abc import Callable
from itertools import product

import pytest

from gateway.domain.channels import Channel, ChannelOptions, Channels, ChannelSettings, Namespace
from gateway.domain.permissions import may_read_history, may_read_presence, refuse_publish, refuse_subscribe
from gateway.protocol import codes

NAMES = ["x", "#", "#42", "x#41,42", "x#42#43", "x#41,"]
USERS = ["", "41", "42", "43"]
BOTH = (False, True)


def channel(name: str, options: dict[str, bool], *, namespace: str, private: bool) -> Channel:
    settings = ChannelSettings(
        without_namespace=ChannelOptions() if namespace else ChannelOptions.model_validate(options),
        namespaces=[Namespace.model_validate({"name": namespace, **options})] if namespace else [],
    )
    full_name = ("$" if private else "") + (f"{namespace}:" if namespace else "") + name
    resolved = Channels(settings).resolve(full_name)
    assert isinstance(resolved, Channel)
    return resolved


def may_subscribe(name: str, user: str, options: dict[str, bool], *, private: bool, insecure: bool) -> bool:
    """Protocol.md 3.4, its steps numbered, for a subscribe without a token."""
    if private:
        return False  # 3, and 6.3: `$` channels still need a token when insecure
    is_user_limited = options["allow_user_limited_channels"] and "#" in name  # 6.1
    if is_user_limited and user != "" and user in name[name.rindex("#") + 1 :].split(","):
        return True  # 5
    if (
        options["allow_subscribe_for_client"]
        and (user != "" or options["allow_subscribe_for_anonymous"])
        and not is_user_limited
    ):
        return True  # 7
    return insecure  # 8


@pytest.mark.parametrize("namespace", ["", "chat"], ids=["no namespace", "namespace"])
@pytest.mark.parametrize(
    "options",
    [
        {
            "allow_subscribe_for_client": client,
            "allow_subscribe_for_anonymous": nobody,
            "allow_user_limited_channels": users,
        }
        for client, nobody, users in product(BOTH, repeat=3)
    ],
    ids=lambda options: "+".join(name.removeprefix("allow_") for name, on in options.items() if on) or "nothing",
)
def test_who_may_subscribe_without_a_token(namespace: str, options: dict[str, bool]) -> None:
    table, expected = {}, {}
    for name, user, private, insecure in product(NAMES, USERS, BOTH, BOTH):
        case = f"{'$' if private else ''}{name} by {user or 'nobody'}{', insecure' if insecure else ''}"
        where = channel(name, options, namespace=namespace, private=private)
        table[case] = refuse_subscribe(where, user, is_insecure=insecure)
        allowed = may_subscribe(name, user, options, private=private, insecure=insecure)
        expected[case] = None if allowed else codes.PERMISSION_DENIED
    assert len(table) == len(NAMES) * len(USERS) * 4
    assert table == expected


@pytest.mark.parametrize("namespace", ["", "chat"], ids=["no namespace", "namespace"])
@pytest.mark.parametrize("private", BOTH, ids=["public", "private"])
def test_who_may_publish(namespace: str, *, private: bool) -> None:
    """Allowed for clients, or for subscribers while subscribed; the anonymous need one more; insecure allows all."""
    table, expected = {}, {}
    for client, subscriber, anonymous in product(BOTH, repeat=3):
        options = {
            "allow_publish_for_client": client,
            "allow_publish_for_subscriber": subscriber,
            "allow_publish_for_anonymous": anonymous,
        }
        where = channel("x#42", options, namespace=namespace, private=private)
        for user, subscribed, insecure in product(["", "42", "43"], BOTH, BOTH):
            case = (client, subscriber, anonymous, user, subscribed, insecure)
            table[case] = refuse_publish(where, user, is_subscribed=subscribed, is_insecure=insecure)
            match case:
                case (_, _, _, _, _, True):
                    allowed = True
                case (_, _, False, "", _, _):
                    allowed = False
                case (True, _, _, _, _, _) | (_, True, _, _, True, _):
                    allowed = True
                case _:
                    allowed = False
            expected[case] = None if allowed else codes.PERMISSION_DENIED
    assert len(table) == 96
    assert table == expected


@pytest.mark.parametrize(("what", "may"), [("history", may_read_history), ("presence", may_read_presence)])
@pytest.mark.parametrize("private", BOTH, ids=["public", "private"])
def test_who_may_read(what: str, may: Callable[..., bool], *, private: bool) -> None:
    """As publishing is; the options of the other kind, all of them on, open nothing."""
    other = {"history": "presence", "presence": "history"}[what]
    open_other = {f"allow_{other}_for_{who}": True for who in ("client", "subscriber", "anonymous")}
    table, expected = {}, {}
    for client, subscriber, anonymous in product(BOTH, repeat=3):
        options = open_other | {
            f"allow_{what}_for_client": client,
            f"allow_{what}_for_subscriber": subscriber,
            f"allow_{what}_for_anonymous": anonymous,
        }
        where = channel("x", options, namespace="chat", private=private)
        for user, subscribed, insecure in product(["", "42"], BOTH, BOTH):
            case = (client, subscriber, anonymous, user, subscribed, insecure)
            table[case] = may(where, user, is_subscribed=subscribed, is_insecure=insecure)
            is_open = client or (subscriber and subscribed)
            expected[case] = insecure or (is_open and (user != "" or anonymous))
    assert len(table) == 64
    assert table == expected
