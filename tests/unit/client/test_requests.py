import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.client.agenda import Agenda
from gateway.client.errors import (
    ClientError,
    DisconnectedError,
    InvalidArgumentError,
    QueueFullError,
    ReplyTimeoutError,
    UnansweredError,
)
from gateway.client.requests import Request, Requests
from gateway.client.settings import ClientSettings
from gateway.protocol.client_codec import ServerMessage
from gateway.protocol.messages import Command, PublishRequest


class Desk:
    """Requests, and what came of each by its name."""

    def __init__(self, **settings: Any) -> None:
        self.agenda = Agenda()
        self.agenda.now_s = 100.0
        self.requests = Requests(ClientSettings(**settings), self.agenda)
        self.outcomes: dict[str, ServerMessage | ClientError] = {}

    def make(self, name: str, *, data: bytes = b"1", is_vital: bool = False) -> Request:
        command = Command(publish=PublishRequest("c", Raw(data)))
        return Request(name, command, lambda outcome: self.outcomes.update({name: outcome}), is_vital=is_vital)

    def send(self, *names: str) -> None:
        for name in names:
            self.requests.send(self.make(name))

    @property
    def sent(self) -> list[list[dict[str, Any]]]:
        return [[json.loads(line) for line in frame.split(b"\n")] for frame in self.requests.frames()]

    def kinds(self) -> dict[str, type]:
        return {name: type(outcome) for name, outcome in self.outcomes.items()}


def test_commands_of_one_turn_share_a_frame_under_rising_ids() -> None:
    desk = Desk()
    desk.send("a", "b", "c")
    assert [[each["id"] for each in frame] for frame in desk.sent] == [[1, 2, 3]]
    desk.send("d")
    assert [[each["id"] for each in frame] for frame in desk.sent] == [[4]]
    assert desk.sent == []


def test_a_frame_holds_at_most_what_may_be_sent() -> None:
    desk = Desk(send_max_bytes=200)
    for number in range(7):
        desk.requests.send(desk.make(str(number), data=b"%d" % 10**40))
    frames = list(desk.requests.frames())
    assert [len(frame) <= 200 for frame in frames] == [True] * len(frames)
    assert sum(frame.count(b"\n") + 1 for frame in frames) == 7
    assert len(frames) == 4


def test_ids_begin_anew_after_the_largest_there_is() -> None:
    desk = Desk()
    desk.requests._last_id = 2**32 - 2  # noqa: SLF001 - four thousand million commands take too long
    desk.send("a", "b")
    assert [[each["id"] for each in frame] for frame in desk.sent] == [[2**32 - 1, 1]]


def test_replies_find_who_asked_in_any_order_and_once() -> None:
    desk = Desk()
    desk.send("a", "b")
    desk.requests.answer(ServerMessage(id=2))
    desk.requests.answer(ServerMessage(id=2))
    desk.requests.answer(ServerMessage(id=9))
    assert desk.outcomes == {"b": ServerMessage(id=2)}


def test_what_is_not_answered_in_time_is_a_timeout_and_says_whether_the_connection_is_any_good() -> None:
    desk = Desk(reply_timeout_s=5)
    desk.send("a")
    desk.agenda.now_s += 2
    desk.requests.send(desk.make("b", is_vital=True))
    assert desk.agenda.wake_at_s == 105.0
    desk.agenda.now_s = 104.9
    assert (list(desk.requests.expire()), desk.outcomes) == ([], {})
    desk.agenda.now_s = 105.0
    assert (list(desk.requests.expire()), desk.kinds()) == ([], {"a": ReplyTimeoutError})
    assert desk.requests.deadline_s == 107.0
    desk.agenda.now_s = 107.0
    assert [late.what for late in desk.requests.expire()] == ["b"]
    assert desk.requests.deadline_s == float("inf")


def test_a_lost_connection_leaves_the_fate_of_what_was_sent_open() -> None:
    desk = Desk()
    desk.send("a")
    list(desk.requests.frames())
    desk.send("b")
    desk.requests.lost("reset")
    assert desk.kinds() == {"a": UnansweredError, "b": UnansweredError}
    assert desk.sent == []


def test_what_is_held_is_sent_in_order_once_there_is_a_connection() -> None:
    desk = Desk()
    for name in ("a", "b", "c"):
        desk.requests.hold(desk.make(name, data=name.encode().join((b'"', b'"'))))
    assert desk.sent == []
    desk.requests.release()
    (frame,) = desk.sent
    assert [(each["id"], each["publish"]["data"]) for each in frame] == [(1, "a"), (2, "b"), (3, "c")]
    assert desk.requests.held_bytes == 0


def test_what_is_held_too_long_fails_and_was_not_sent() -> None:
    desk = Desk(offline_wait_s=3)
    desk.requests.hold(desk.make("a"))
    desk.agenda.now_s += 2
    desk.requests.hold(desk.make("b"))
    desk.agenda.now_s += 1
    assert list(desk.requests.expire()) == []
    assert desk.kinds() == {"a": DisconnectedError}
    desk.requests.release()
    assert [len(frame) for frame in desk.sent] == [1]


def test_a_withdrawn_command_is_never_sent_and_holds_no_room() -> None:
    desk = Desk()
    request = desk.make("a")
    other = desk.make("b")
    desk.requests.hold(other)
    other.withdraw()
    desk.requests.release()
    assert desk.sent == []
    desk.requests.hold(request)
    request.withdraw()
    list(desk.requests.expire())
    assert desk.requests.held_bytes == 0
    desk.requests.release()
    assert (desk.sent, desk.outcomes) == ([], {})


def test_holding_is_bounded_and_says_so() -> None:
    desk = Desk(queue_max_bytes=200)
    size = len(b'{"id":4294967295,"publish":{"channel":"c","data":1}}')
    for number in range(200 // size):
        desk.requests.hold(desk.make(str(number)))
    with pytest.raises(QueueFullError):
        desk.requests.hold(desk.make("one too many"))
    assert desk.requests.held_bytes == 200 // size * size


@pytest.mark.parametrize("method", ["send", "hold"])
def test_a_command_above_the_limit_is_refused_before_the_server_ends_the_connection_for_it(method: str) -> None:
    desk = Desk(send_max_bytes=100)
    with pytest.raises(InvalidArgumentError, match="may be sent"):
        getattr(desk.requests, method)(desk.make("a", data=b"1" * 100))
    assert (desk.sent, desk.requests.held_bytes, desk.requests.deadline_s) == ([], 0, float("inf"))


def test_at_the_end_those_whose_commands_were_held_are_told_why() -> None:
    desk = Desk()
    desk.requests.hold(desk.make("a"))
    desk.requests.close(lambda channel: ClientError("over", to_do="go", channel=channel))
    assert desk.kinds() == {"a": ClientError}
