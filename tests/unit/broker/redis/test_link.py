"""The link alone, over a wire that the test holds both ends of; tests of outages have real servers."""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis
import pytest

from gateway.broker.contract import BrokerError
from gateway.broker.outcome import Outcome
from gateway.broker.redis.counts import Journal
from gateway.broker.redis.endpoint import Endpoint
from gateway.broker.redis.link import Link
from gateway.broker.redis.scripts import Script
from gateway.broker.redis.settings import RedisSettings
from gateway.broker.redis.wire import pack
from tests.support.held_wire import HeldWire
from tests.support.redis_engines import Reports

SCRIPT = Script("return redis.call('SET', KEYS[1], ARGV[1])")
NOSCRIPT = b"-NOSCRIPT No matching script.\r\n"


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.reports = Reports()
        self.journal = Journal(self.reports)
        chosen = RedisSettings(**settings)
        self.link = Link(Endpoint(chosen), chosen, [SCRIPT], journal=self.journal)
        self.wire = HeldWire(self.journal.counts)
        self.wire.attach(self.link)
        self.link.opened(self.wire)

    def call(self, text: str, subject: str = "") -> Outcome[Any]:
        return self.link.call(pack("ECHO", text), parse, subject)

    def run(self, text: str, subject: str) -> Outcome[Any]:
        return self.link.call(SCRIPT.pack([b"key"], [text]), parse, subject, SCRIPT)

    def answer(self, *replies: bytes) -> None:
        self.wire.data_received(b"".join(replies))

    async def written(self) -> list[tuple[bytes, ...]]:
        await asyncio.sleep(0)
        return self.wire.commands()


def parse(subject: str, reply: Any) -> tuple[str, Any]:
    return subject, reply


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def by_digest(text: str) -> tuple[bytes, ...]:
    return b"EVALSHA", SCRIPT.digest.encode(), b"1", b"key", text.encode()


def with_text(text: str) -> tuple[bytes, ...]:
    return b"EVAL", SCRIPT.text.encode(), b"1", b"key", text.encode()


def errors(outcomes: Sequence[Outcome[Any]]) -> list[str | None]:
    return [None if outcome.error is None else str(outcome.error) for outcome in outcomes]


async def test_the_commands_of_a_turn_are_one_write_and_their_replies_settle_them_in_order() -> None:
    bench = Bench()
    outcomes = [bench.call(text, f"subject {text}") for text in ("a", "b", "c")]
    assert bench.wire.written == [], "a turn is collected"
    await asyncio.sleep(0)
    assert bench.wire.written == [pack("ECHO", "a") + pack("ECHO", "b") + pack("ECHO", "c")]
    bench.answer(bulk("a"), b":7\r\n$1")
    assert [outcome.is_settled for outcome in outcomes] == [True, True, False]
    bench.answer(b"\r\nc\r\n")
    assert [each.result() for each in outcomes] == [("subject a", b"a"), ("subject b", 7), ("subject c", b"c")]
    assert (bench.journal.counts.commands, bench.journal.counts.batches) == (3, 1)


async def test_an_error_fails_its_command_alone_and_is_reported_once_for_its_subject() -> None:
    bench = Bench()
    outcomes = [bench.call("x", "a"), bench.call("y", "a"), bench.call("z", "b")]
    await bench.written()
    wrong = b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    bench.answer(wrong, wrong, bulk("z"))
    text = "WRONGTYPE Operation against a key holding the wrong kind of value"
    assert errors(outcomes) == [text, text, None]
    assert bench.reports.lines == [("redis refused", {"subject": "a", "error": text})]
    assert bench.journal.counts.refused == 2


@pytest.mark.parametrize(
    "error",
    [
        "READONLY You can't write against a read only replica.",
        "ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a replica.",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ],
)
async def test_a_server_that_will_refuse_everything_is_given_up(error: str) -> None:
    bench = Bench()
    outcomes = [bench.call("x"), bench.call("y")]
    await bench.written()
    bench.answer(b"-%b\r\n" % error.encode())
    assert bench.wire.reason == error
    assert errors(outcomes) == [error, "the connection to Redis was lost"]


async def test_a_reply_that_makes_no_sense_fails_its_command_alone() -> None:
    bench = Bench()

    def strict(_: str, reply: Any) -> int:
        return int(reply)

    outcomes = [bench.link.call(pack("ECHO", "x"), strict) for _ in range(2)]
    await bench.written()
    bench.answer(bulk("x"), bulk("12"))
    assert errors(outcomes) == ["a reply that makes no sense: invalid literal for int() with base 10: b'x'", None]
    assert outcomes[1].result() == 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"+OK\r\n", "it answers what nobody has asked"),
        (b"HTTP/1.1 400 Bad Request\r\n", "it does not speak the Redis protocol"),
    ],
)
async def test_a_peer_that_is_no_redis_is_given_up(data: bytes, reason: str) -> None:
    bench = Bench()
    bench.answer(data)
    assert bench.wire.reason == reason


async def test_all_that_waits_fails_when_the_connection_is_lost_and_what_comes_later_fails_at_once() -> None:
    bench = Bench()
    sent = bench.call("sent")
    await bench.written()
    unsent = bench.call("unsent")
    later: list[Outcome[Any]] = []
    unsent.then(lambda _: later.append(bench.call("from a callback")))
    bench.wire.connection_lost(None)
    lost = "the connection to Redis was lost"
    assert errors([sent, unsent, *later, bench.call("late")])[:2] == [lost, lost]
    assert all(isinstance(outcome.error, BrokerError) for outcome in [*later, bench.call("late")])
    await asyncio.sleep(0)
    assert bench.wire.written == []


async def test_a_full_queue_refuses_at_once_but_an_empty_one_takes_any_command() -> None:
    bench = Bench(queue_max_size=100)
    large, refused = bench.call("x" * 1000), bench.call("y")
    assert errors([refused]) == ["too much waits for Redis to answer"]
    assert len(await bench.written()) == 1
    assert errors([bench.call("y")]) == ["too much waits for Redis to answer"], "what is sent but not answered counts"
    bench.answer(bulk("x"))
    assert large.result() == ("", b"x")
    for answer in (b"-ERR no\r\n", bulk("y")):
        bench.call("y" * 70)
        assert len(await bench.written()) == 1, "an answer makes room, an error too"
        bench.answer(answer)


async def test_a_forgotten_script_is_sent_again_with_its_text_before_anything_new() -> None:
    bench = Bench()
    first, second = bench.run("1", "a"), bench.run("2", "b")
    assert await bench.written() == [by_digest("1"), by_digest("2")]
    third = bench.run("3", "a")
    assert await bench.written() == [by_digest("3")]
    bench.answer(NOSCRIPT)
    fourth = bench.call("4", "a")
    assert await bench.written() == [], "two answers are still to come"
    bench.answer(NOSCRIPT)
    assert await bench.written() == []
    bench.answer(NOSCRIPT)
    again = await bench.written()
    assert [each for each in again if each[-1] != b"2"] == [with_text("1"), with_text("3"), (b"ECHO", b"4")]
    assert again[-1] == (b"ECHO", b"4")
    assert with_text("2") in again
    bench.answer(*[b"+OK\r\n"] * 4)
    assert errors([first, second, third, fourth]) == [None] * 4
    assert bench.journal.counts.repeated == 3


async def test_a_forgotten_script_that_was_overtaken_fails_and_the_rest_goes_on() -> None:
    bench = Bench()
    outcomes = [bench.run("1", "a"), bench.run("2", "b"), bench.call("3", "a"), bench.run("4", "a")]
    await bench.written()
    bench.answer(NOSCRIPT, NOSCRIPT, bulk("3"))
    held = bench.call("5", "a")
    assert await bench.written() == []
    bench.answer(NOSCRIPT)
    assert await bench.written() == [with_text("2"), with_text("4"), (b"ECHO", b"5")]
    bench.answer(*[b"+OK\r\n"] * 3)
    overtaken = "Redis had forgotten the script, and what came next overtook"
    assert errors([*outcomes, held]) == [overtaken, None, None, None, None]


async def test_when_all_forgotten_ones_were_overtaken_what_was_held_goes_on() -> None:
    bench = Bench()
    outcomes = [bench.run("1", "a"), bench.call("2", "a"), bench.call("3", "b")]
    await bench.written()
    bench.answer(NOSCRIPT)
    held = bench.call("4", "a")
    assert await bench.written() == []
    bench.answer(bulk("2"))
    assert await bench.written() == [(b"ECHO", b"4")]
    bench.answer(bulk("3"), bulk("4"))
    assert [outcome.error is None for outcome in [*outcomes, held]] == [False, True, True, True]


async def test_what_is_to_be_repeated_fails_with_the_connection() -> None:
    bench = Bench()
    outcomes = [bench.run("1", "a"), bench.call("2", "b")]
    await bench.written()
    bench.answer(NOSCRIPT)
    outcomes.append(bench.call("3", "c"))
    bench.wire.connection_lost(None)
    assert errors(outcomes) == ["the connection to Redis was lost"] * 3


async def test_a_script_of_which_nobody_gave_the_text_is_refused() -> None:
    bench = Bench()
    outcome = bench.link.call(SCRIPT.pack([b"key"], ["x"]), parse, "a")
    await bench.written()
    bench.answer(NOSCRIPT)
    assert errors([outcome]) == ["NOSCRIPT No matching script."]


async def test_a_command_that_is_not_answered_in_time_is_overdue_though_others_are() -> None:
    bench = Bench(timeout_s=2.0)
    bench.call("1")
    bench.call("2")
    await bench.written()
    for now_s, overdue in [(10.0, None), (11.0, None), (11.9, None)]:
        assert bench.link.overdue(now_s) == overdue
        bench.link.probe(now_s)
        await bench.written()
    bench.answer(bulk("1"))
    assert bench.link.overdue(12.0) == "a command was not answered for 2 s"
    bench.answer(bulk("2"))
    assert bench.link.overdue(12.0) is None, "the probes wait for less than that"
    bench.answer(*[b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"] * 3)
    assert bench.link.overdue(100.0) is None


@pytest.mark.parametrize(
    ("role", "refusal", "probe"),
    [
        ([b"master", 0, []], None, (b"ROLE",)),
        ([b"slave", b"h", 1, b"connected", 0], "READONLY it is a replica, and takes no publications", (b"ROLE",)),
        (hiredis.ReplyError("NOPERM"), None, (b"PING",)),
    ],
)
async def test_a_replica_is_refused_and_later_probes_ask_for_the_role(
    role: Any, refusal: str | None, probe: tuple[bytes, ...]
) -> None:
    bench = Bench()
    assert bench.link.greeting() == [pack("SCRIPT", "LOAD", SCRIPT.text), pack("ROLE")]
    assert bench.link.refuse([b"digest", role]) == refusal
    bench.link.probe(0.0)
    assert await bench.written() == [probe]


async def test_a_server_that_does_not_take_the_scripts_is_refused() -> None:
    assert Bench().link.refuse([hiredis.ReplyError("LOADING …"), [b"master"]]) == "LOADING …"


async def test_a_server_that_becomes_a_replica_is_given_up() -> None:
    bench = Bench()
    bench.link.probe(0.0)
    await bench.written()
    bench.answer(b"*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n")
    assert bench.wire.reason == "READONLY it is a replica, and takes no publications"
