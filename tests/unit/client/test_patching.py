"""Patches, from the client's side: what they are made whole with, and what comes of one that does not fit."""

import json
from typing import Any, Final

import pytest

from gateway.client.endings import Kind
from gateway.client.membership import Membership
from gateway.client.settings import SubscriptionSettings
from gateway.protocol.fossil import text_patch
from tests.unit.client.dialogue import Dialogue, Notes

PATCHED: Final = SubscriptionSettings(delta="fossil")


def value(number: int) -> bytes:
    return json.dumps({"text": "é漢😀 long enough " * 5, "n": number}, ensure_ascii=False).encode()


def full(number: int) -> dict[str, Any]:
    return {"data": value(number).decode(), "offset": number}


def patch(number: int, *, of: int) -> dict[str, Any]:
    made = text_patch(value(of), value(number))
    assert made is not None
    return {"data": made.decode(), "delta": True, "offset": number}


def misfit(number: int) -> dict[str, Any]:
    """Return a patch of what this client has never got."""
    made = text_patch(value(0).replace(b"long", b"very long", 1), value(number))
    assert made is not None
    return {"data": made.decode(), "delta": True, "offset": number}


def subscribed(**reply: Any) -> tuple[Dialogue, Membership, Notes]:
    dialogue = Dialogue()
    dialogue.connect()
    membership, notes = dialogue.join("news", wishes=PATCHED)
    (command,) = dialogue.sent()
    assert command["subscribe"]["delta"] == "fossil"
    dialogue.say({"id": command["id"], "subscribe": {"recoverable": True, "epoch": "e", **reply}})
    return dialogue, membership, notes


def numbers(notes: Notes) -> list[int]:
    assert all(publication["text"] == json.loads(value(0))["text"] for publication, _ in notes.publications)
    return [publication["n"] for publication, _ in notes.publications]


def test_patches_are_made_whole() -> None:
    dialogue, _, notes = subscribed(delta=True)
    for pub in (full(1), patch(2, of=1), full(3), patch(4, of=3)):
        dialogue.push("news", pub=pub)
    assert numbers(notes) == [1, 2, 3, 4]


def test_who_was_not_granted_patches_gets_payloads_as_ever() -> None:
    dialogue, _, notes = subscribed()
    dialogue.push("news", pub={"data": json.loads(value(1)), "offset": 1})
    assert numbers(notes) == [1]


def test_what_was_recovered_is_made_whole_and_is_the_base_of_what_follows() -> None:
    dialogue, _, notes = subscribed(delta=True, recovered=True, publications=[full(1), patch(2, of=1)])
    dialogue.push("news", pub=patch(3, of=2))
    assert numbers(notes) == [1, 2, 3]


@pytest.mark.parametrize(("recovered", "is_fitting"), [(True, True), (False, False)])
def test_the_last_value_outlives_the_connection_if_nothing_was_lost(*, recovered: bool, is_fitting: bool) -> None:
    dialogue, _, notes = subscribed(delta=True)
    dialogue.push("news", pub=full(1))
    dialogue.push("news", unsubscribe={"code": 2500, "reason": "insufficient state"})
    dialogue.answer(
        "subscribe", {"recoverable": True, "epoch": "e", "delta": True, "recovered": recovered, "offset": 1}
    )
    dialogue.push("news", pub=patch(2, of=1))
    assert numbers(notes) == ([1, 2] if is_fitting else [1])


@pytest.mark.parametrize(
    "pub",
    [
        misfit(2),
        {**patch(2, of=1), "data": "no patch"},
        {**patch(2, of=1), "data": {"a": 1}},
        {**full(2), "data": 7},
    ],
    ids=["of something else", "none", "no string", "a payload that is no string"],
)
def test_one_that_does_not_fit_costs_the_connection_and_nothing_is_lost(pub: dict[str, Any]) -> None:
    dialogue, membership, notes = subscribed(delta=True)
    dialogue.push("news", pub=full(1))
    dialogue.push("news", pub=pub)
    ending = dialogue.session.agenda.ending
    assert ending is not None
    assert (ending.kind, "does not fit in 'news'" in ending.reason) == (Kind.NETWORK, True)
    assert (numbers(notes), membership.offset) == ([1], 1)
    # It goes on from where it was, and wants no patches any more.
    dialogue.lose(ending)
    _, command = dialogue.connect()
    assert command["subscribe"] == {
        "channel": "news", "recover": True, "epoch": "e", "offset": 1, "recoverable": True,
    }  # fmt: skip


def test_one_that_does_not_fit_in_what_was_recovered_costs_the_connection_too() -> None:
    dialogue, membership, notes = subscribed(delta=True, recovered=True, publications=[full(1), misfit(3)])
    assert dialogue.session.agenda.ending is not None
    assert (numbers(notes), membership.offset) == ([1], 1)
