"""What the kernel is given of a response, and when."""

from typing import Any

import pytest

from gateway.transport.responses import JoinedWriter


class Transport:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def close(self) -> None:
        self.told.append("close")

    def is_closing(self) -> bool:
        return "close" in self.told


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"one", b"two"], [b"headone", b"two"]),
        ([b"head", b""], [b"head"]),
        ([b"head", b"", b"later"], [b"head", b"later"]),
        ([CONTINUE, b"head", b"body"], [CONTINUE, b"headbody"]),
        ([b"head", b"body", "close"], [b"headbody", "close"]),
        ([b"head", "close"], [b"head", "close"]),
        (["close"], ["close"]),
        ([b"head"], []),
        ([b"head", CONTINUE], [b"head" + CONTINUE]),
    ],
)
def test_a_head_goes_out_with_what_follows_it(steps: list[Any], told: list[Any]) -> None:
    transport: Any = Transport()
    writer = JoinedWriter(transport)
    for step in steps:
        assert writer.is_closing() is False
        if step == "close":
            writer.close()
        else:
            writer.write(step)
    assert transport.told == told


def test_what_is_kept_goes_out_with_the_head_and_no_later_than_it_is_asked_for() -> None:
    transport: Any = Transport()
    writer = JoinedWriter(transport)
    writer.write(b"head ")
    writer.keep(b"first ")
    writer.write(b"second")
    assert transport.told == [b"head first second"]
    writer.flush()
    assert transport.told == [b"head first second"]
    other = JoinedWriter(transport)
    other.write(b"head")
    other.flush()
    other.write(b"body")
    assert transport.told[1:] == [b"head", b"body"]


def test_a_loss_is_told_to_who_wants_to_know() -> None:
    transport: Any = Transport()
    heard: list[bool] = []
    writer = JoinedWriter(transport)
    writer.when_lost = lambda *, is_orderly: heard.append(is_orderly)
    writer.lost(is_orderly=True, was_congested=True)
    assert (heard, writer.was_congested) == ([True], True)
    JoinedWriter(transport).lost(is_orderly=False, was_congested=False)
    assert heard == [True]


def test_a_response_that_is_none_any_more_writes_nothing() -> None:
    transport: Any = Transport()
    writer = JoinedWriter(transport)
    writer.write(b"head")
    writer.sever()
    writer.write(b"body")
    writer.flush()
    assert (transport.told, writer.is_closing()) == ([], True)
