"""What connections may be closed with."""

import pytest

from gateway.protocol.closing import closing_with
from gateway.protocol.codes import Disconnect


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [
        (4001, "bye", "bye"),
        (3503, "", "force disconnect"),
        (3012, "", "no pong"),
        (4999, "", "force disconnect"),
        (3000, "é" * 61, "é" * 61),
    ],
)
def test_the_reason_is_as_given_or_the_one_that_goes_with_the_code(code: int, reason: str, told: str) -> None:
    assert closing_with(code, reason) == Disconnect(code, told)


@pytest.mark.parametrize("code", [-1, 0, 1000, 2999, 5000])
def test_other_codes_are_none(code: int) -> None:
    with pytest.raises(ValueError, match=f"disconnect.code is {code}, and 3000 to 4999 are codes"):
        closing_with(code, "bye")


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "1", "null", '{"reconnect":false}', '"quoted"'])
def test_a_reason_that_a_client_would_misread_is_refused(reason: str) -> None:
    with pytest.raises(
        ValueError, match=r"disconnect\.reason is a text of at most 123 bytes, and nothing that is JSON"
    ):
        closing_with(4000, reason)
