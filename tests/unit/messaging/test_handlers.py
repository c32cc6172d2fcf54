import pytest

from gateway.messaging.handlers import HANDLERS, Request


@pytest.mark.parametrize("data", ["text", b"\x00\xff", "", b""])
async def test_echo_answers_with_what_it_got(data: str | bytes) -> None:
    answer = await HANDLERS["echo"](Request(channel="echo:a", user="42", client="c", data=data))
    assert (answer, type(answer)) == (data, type(data))


def test_a_request_can_not_be_changed() -> None:
    request = Request(channel="echo:a", user="42", client="c", data="x")
    with pytest.raises(AttributeError):
        request.user = "43"  # type: ignore[misc]
