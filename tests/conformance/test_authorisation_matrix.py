"""Who may subscribe and publish where: protocol.md 3.4 and 3.5, every combination of options, said a second time.

What is expected here is written from the protocol's text and shares nothing with the gateway's own decisions.
"""

import itertools
from typing import Any, NamedTuple

import pytest

from tests.support.conversations import ANONYMOUS, Client, House, house, token

OPTIONS = (
    "allow_subscribe_for_client",
    "allow_subscribe_for_anonymous",
    "allow_publish_for_client",
    "allow_publish_for_subscriber",
    "allow_publish_for_anonymous",
    "allow_user_limited_channels",
)
LISTED = "42"
USERS = ("", LISTED, "43")
"""The anonymous one, the one that user-limited channels here are for, and another."""
PLAIN, LIMITED, LIMITED_TO_TWO, PRIVATE, PRIVATE_LIMITED = "x", "x#42", "y#41,42", "$x", "$x#42"
KINDS = (PLAIN, LIMITED, LIMITED_TO_TWO, PRIVATE, PRIVATE_LIMITED)
DENIED = {"code": 103, "message": "permission denied"}


class Case(NamedTuple):
    """The options of a namespace, and who asks."""

    options: dict[str, bool]
    user: str
    is_insecure: bool

    @property
    def namespace(self) -> str:
        return "n" + "".join(str(int(self.options[name])) for name in OPTIONS)

    def channel(self, kind: str) -> str:
        return f"${self.namespace}:{kind[1:]}" if kind.startswith("$") else f"{self.namespace}:{kind}"

    # What protocol.md says.

    def may_subscribe(self, kind: str) -> bool:
        """Steps 3 and 5 to 8 of 3.4, without a token."""
        if kind.startswith("$"):
            return False  # "private channel (`$…`) without token → 103", and 6.3: insecure or not
        if self.is_insecure:
            return True
        if "#" in kind and self.options["allow_user_limited_channels"]:
            return self.user == LISTED
        return self.options["allow_subscribe_for_client"] and (
            self.user != "" or self.options["allow_subscribe_for_anonymous"]
        )

    def may_publish(self, *, is_subscribed: bool) -> bool:
        """The third point of 3.5; 6.2: anonymous "only adds to one of the first two"."""
        if self.is_insecure:
            return True
        if self.user == "" and not self.options["allow_publish_for_anonymous"]:
            return False
        return self.options["allow_publish_for_client"] or (
            is_subscribed and self.options["allow_publish_for_subscriber"]
        )


COMBINATIONS = [
    dict(zip(OPTIONS, values, strict=True)) for values in itertools.product((False, True), repeat=len(OPTIONS))
]


def cases(*, is_insecure: bool) -> list[Case]:
    return [Case(options, user, is_insecure) for options in COMBINATIONS for user in USERS]


def tables(*, is_insecure: bool) -> list[dict[str, Any]]:
    namespaces = [{"name": Case(options, "", is_insecure).namespace, **options} for options in COMBINATIONS]
    return [{"channel": {"namespaces": namespaces}}, ANONYMOUS, {"client": {"insecure": is_insecure}}]


def test_every_option_that_permits_subscribing_or_publishing_is_in_the_matrix() -> None:
    from gateway.domain.channels import ChannelOptions  # noqa: PLC0415 - only to see that none is missing

    reads = ("allow_history", "allow_presence")
    reads_and_wishes = (*reads, "allow_positioning", "allow_recovery", "allow_tags", "allow_channel_compaction")
    permitting = {name for name in ChannelOptions.model_fields if name.startswith("allow_")}
    assert {name for name in permitting if not name.startswith(reads_and_wishes)} == set(OPTIONS)


class Cell(NamedTuple):
    """One question to the gateway: what was asked for, and whether it is allowed."""

    what: str
    command: dict[str, Any]
    is_allowed: bool


def questions(case: Case) -> list[Cell]:
    """What one client asks, in order; it is subscribed by token in between, whatever it may do without one."""
    cells = []
    for kind in KINDS:
        channel = case.channel(kind)
        publish = {"publish": {"channel": channel, "data": 1}}
        leave = {"unsubscribe": {"channel": channel}}
        join = {"subscribe": {"channel": channel}}
        join_by_token = {"subscribe": {"channel": channel, "token": token(case.user, channel=channel)}}
        may_join = case.may_subscribe(kind)
        cells += [
            Cell(f"{kind}: publish", publish, case.may_publish(is_subscribed=False)),
            Cell(f"{kind}: subscribe", join, may_join),
            Cell(f"{kind}: publish after that", publish, case.may_publish(is_subscribed=may_join)),
            Cell(f"{kind}: unsubscribe", leave, is_allowed=True),
            Cell(f"{kind}: subscribe by token", join_by_token, is_allowed=True),
            Cell(f"{kind}: publish while subscribed", publish, case.may_publish(is_subscribed=True)),
            Cell(f"{kind}: unsubscribe again", leave, is_allowed=True),
            Cell(f"{kind}: publish when it has left", publish, case.may_publish(is_subscribed=False)),
        ]
    return cells


async def connected(built: House, case: Case) -> Client:
    client = built.open()
    (reply,) = await client.ask({"id": 1, "connect": {"token": token(case.user)} if case.user else {}})
    assert "connect" in reply, reply
    return client


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
async def test_every_client_may_do_exactly_what_the_options_say(*, is_insecure: bool) -> None:
    wrong, asked = [], 0
    async with house(*tables(is_insecure=is_insecure)) as built:
        for case in cases(is_insecure=is_insecure):
            client = await connected(built, case)
            cells = questions(case)
            replies = await client.ask(*({"id": n, **cell.command} for n, cell in enumerate(cells, 2)))
            answers = {reply["id"]: reply for reply in replies if "id" in reply}
            for number, cell in enumerate(cells, 2):
                (method,) = cell.command
                expected = {"id": number, method: {}} if cell.is_allowed else {"id": number, "error": DENIED}
                asked += 1
                if answers.get(number) != expected:
                    wrong.append((case.namespace, case.user, cell.what, answers.get(number), expected))
            client.go()
    assert not wrong, f"{len(wrong)} of {asked}, the first: {wrong[:5]}"
    assert asked == 64 * 3 * 5 * 8


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
async def test_who_is_not_let_in_is_delivered_nothing_and_who_is_gets_all(*, is_insecure: bool) -> None:
    """The reply is one thing, the delivery another."""
    wrong = []
    async with house(*tables(is_insecure=is_insecure)) as built:
        for case in cases(is_insecure=is_insecure):
            client = await connected(built, case)
            joins = [{"id": n, "subscribe": {"channel": case.channel(kind)}} for n, kind in enumerate(KINDS, 2)]
            await client.ask(*joins)
            for kind in KINDS:
                built.publish(case.channel(kind))
            await built.settle()
            got = sorted(message["push"]["channel"] for message in client.take_values())
            due = sorted(case.channel(kind) for kind in KINDS if case.may_subscribe(kind))
            if got != due:
                wrong.append((case.namespace, case.user, got, due))
            client.go()
    assert not wrong, f"{len(wrong)}, the first: {wrong[:5]}"


BAD_TOKENS: dict[str, tuple[dict[str, Any], Any]] = {
    "of another user": ({"user": "44"}, "disconnect"),
    "for another channel": ({"channel": "elsewhere"}, "disconnect"),
    "for another client": ({"client": "somebody else"}, "disconnect"),
    "signed by a stranger": (
        {"key": "another secret of 32 bytes or so…"},
        {"code": 103, "message": "permission denied"},
    ),
    "expired": ({"exp": 1}, {"code": 109, "message": "token expired"}),
    "of an expired grant": ({"expire_at": 1}, {"code": 110, "message": "expired"}),
}


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_token_that_does_not_fit_opens_nothing_even_where_none_is_needed(
    name: str, *, is_insecure: bool
) -> None:
    """3.4: the token comes before the options (step 4), so a bad one is not healed by them (5.3)."""
    change, expected = BAD_TOKENS[name]
    wrong = []
    async with house(*tables(is_insecure=is_insecure)) as built:
        for case in cases(is_insecure=is_insecure):
            client = await connected(built, case)
            channel = case.channel(PLAIN)
            bad = token(**({"user": case.user, "channel": channel} | change))
            replies = await client.ask({"id": 2, "subscribe": {"channel": channel, "token": bad}})
            met = (client.closing, replies, client.channels)
            due: tuple[Any, list[Any], set[str]] = (
                ((3500, "invalid token"), [], set())
                if expected == "disconnect"
                else (None, [{"id": 2, "error": expected}], set())
            )
            if met != due:
                wrong.append((case.namespace, case.user, met))
            client.go()
    assert not wrong, f"{len(wrong)}, the first: {wrong[:5]}"


# The plain protocol: the same permissions, asked for by a path and a first message (README, "The plain protocol").


@pytest.mark.parametrize("is_insecure", [False, True], ids=["secure", "insecure"])
async def test_a_plain_client_may_do_exactly_the_same(*, is_insecure: bool) -> None:
    wrong, asked = [], 0
    async with house(*tables(is_insecure=is_insecure)) as built:
        for case in cases(is_insecure=is_insecure):
            for kind in KINDS:
                client = built.open_plain(case.channel(kind))
                await built.settle()
                met: list[Any]
                due: list[Any]
                if case.user:
                    greeting = await client.ask({"token": token(case.user)})
                    met, due = greeting[-1:], [{"status": "authenticated", "user": case.user}]
                else:
                    met, due = [], []
                if case.may_subscribe(kind):
                    met += await client.ask("1")
                    due += [1] if case.may_publish(is_subscribed=True) else [{"error": DENIED}]
                    met.append(client.closing)
                    due.append(None)
                else:
                    if not case.user:  # it may still show a token, so it is told when it speaks without one
                        await client.ask("1")
                    met, due = [client.closing], [(1008, "permission denied" if case.user else "token missing")]
                asked += 1
                if met != due:
                    wrong.append((case.namespace, case.user, kind, met, due))
                client.go()
    assert not wrong, f"{len(wrong)} of {asked}, the first: {wrong[:5]}"
    assert asked == 64 * 3 * 5
