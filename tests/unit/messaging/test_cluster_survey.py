"""A question: who is waited for, when it is over, and what is made of the answers."""

import msgspec
import pytest
from msgspec import Raw

from gateway.messaging.control import NodeInfo
from gateway.messaging.survey import (
    ActiveChannels,
    ConnectedClients,
    OpenSurvey,
    Survey,
    encode_answer,
    encode_clients,
    join_clients,
    read_channels,
    read_clients,
    sum_channels,
)
from gateway.protocol.messages import ClientInfo

ONE, TWO, THREE = NodeInfo("1"), NodeInfo("2"), NodeInfo("3")


class Question:
    """An open survey of three nodes that want a number, and how often it was over."""

    def __init__(self) -> None:
        self.ends = 0
        self.open = OpenSurvey([ONE, TWO, THREE], read=msgspec.msgpack.Decoder(int).decode, ended=self._end)

    def take(self, uid: str, value: object) -> None:
        self.open.take(uid, msgspec.msgpack.encode(value))

    def _end(self) -> None:
        self.ends += 1


def test_it_is_over_when_all_have_answered() -> None:
    question = Question()
    question.take("1", 1)
    question.take("2", 2)
    assert question.ends == 0
    question.take("3", 3)
    assert question.ends == 1
    assert question.open.result() == Survey({"1": 1, "2": 2, "3": 3}, [])


def test_who_has_not_answered_is_silent() -> None:
    question = Question()
    question.take("2", 2)
    assert question.open.result() == Survey({"2": 2}, [ONE, THREE])


def test_who_cannot_answer_is_silent_and_not_waited_for() -> None:
    question = Question()
    question.open.take("1", None)
    question.take("2", "another version's answer")
    question.open.take("3", b"\xa1\xff")
    assert question.ends == 1
    assert question.open.result() == Survey({}, [ONE, TWO, THREE])


def test_who_said_goodbye_is_neither_waited_for_nor_silent() -> None:
    question = Question()
    question.take("1", 1)
    question.open.excuse("2")
    question.open.excuse("a stranger")
    assert question.ends == 0
    question.open.excuse("1")
    question.open.excuse("3")
    assert question.ends == 1
    assert question.open.result() == Survey({"1": 1}, [])


def test_a_node_that_has_just_turned_up_may_answer_too() -> None:
    question = Question()
    question.take("new", 4)
    question.open.take("newer", None)
    assert question.ends == 0
    assert question.open.result() == Survey({"new": 4}, [ONE, TWO, THREE])


def test_a_question_that_did_not_get_out_is_over() -> None:
    question = Question()
    question.take("1", 1)
    question.open.cut_short()
    assert question.ends == 1
    assert question.open.result() == Survey({"1": 1}, [TWO, THREE])


def test_channels_are_added_up() -> None:
    answers = {uid: read_channels(encode_answer(each)) for uid, each in {"1": {"a": 1, "é": 2}, "2": {"a": 3}}.items()}
    assert sum_channels(Survey(answers, [THREE])) == ActiveChannels({"a": 4, "é": 2}, [THREE])


def test_clients_are_put_together_as_they_were() -> None:
    one = [ClientInfo("", "c1"), ClientInfo("é", "c2", Raw(b"\xff\x00"), Raw(b"{ }"))]
    two = [ClientInfo("é", "c3")]
    answers = {uid: read_clients(encode_clients(each)) for uid, each in {"1": one, "2": two, "3": []}.items()}
    expected = {"c1": one[0], "c2": one[1], "c3": two[0]}
    assert join_clients(Survey(answers, [THREE])) == ConnectedClients(expected, [THREE])


@pytest.mark.parametrize("answer", [b"", b"\xc0", encode_answer({"a": "b"}), encode_answer([1]), b"\xff" * 9])
def test_other_answers_are_refused(answer: bytes) -> None:
    for read in (read_channels, read_clients):
        with pytest.raises(msgspec.DecodeError):
            read(answer)
