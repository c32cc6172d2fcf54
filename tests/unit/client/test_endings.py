import pytest

from gateway.client.endings import CLOSED_HERE, Ending, Fate, Kind, error_of, fate, is_retriable, may_reconnect
from gateway.client.errors import ClientError, ClosedError, DisconnectedError, RejectedError, UnauthorizedError
from gateway.protocol import codes


@pytest.mark.parametrize("disconnect", codes.DISCONNECTS, ids=lambda each: str(each.code))
def test_each_disconnect_code_lets_back_in_as_its_table_says(disconnect: codes.Disconnect) -> None:
    special = {3005: Fate.RETRY_WITH_NEW_TOKEN, 3014: Fate.RETRY_AFRESH}
    expected = special.get(disconnect.code, Fate.RETRY if disconnect.code < 3500 else Fate.STOP)
    assert fate(Ending(Kind.CLOSE, disconnect.reason, disconnect.code)) is expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (1000, 1008, True),
        (1009, 1009, False),
        (1010, 2999, True),
        (3000, 3499, True),
        (3500, 3999, False),
        (4000, 4499, True),
        (4500, 4999, False),
        (5000, 9999, True),
    ],
)
def test_the_ranges_of_codes(first: int, last: int, *, expected: bool) -> None:
    assert {may_reconnect(code) for code in range(first, last + 1)} == {expected}


@pytest.mark.parametrize("error", codes.ERRORS, ids=lambda each: str(each.code))
def test_each_error_of_connect_is_retried_as_its_table_says(error: codes.ErrorCode) -> None:
    expected = Fate.RETRY if error.temporary else Fate.STOP
    if error.code == 109:
        expected = Fate.RETRY_WITH_NEW_TOKEN
    assert fate(Ending(Kind.ERROR, error.message, error.code, is_temporary=error.temporary)) is expected
    assert is_retriable(error) is error.temporary


def test_errors_below_100_are_retried() -> None:
    assert fate(Ending(Kind.ERROR, "timeout", 1)) is Fate.RETRY
    assert is_retriable(codes.ErrorCode(99, "x"))


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, Fate.STOP), (302, Fate.STOP), (400, Fate.STOP), (401, Fate.STOP), (403, Fate.STOP), (404, Fate.STOP)]
    + [(each, Fate.RETRY) for each in (408, 425, 429, 500, 502, 503, 504)],
)
def test_http_statuses(status: int, expected: Fate) -> None:
    assert fate(Ending(Kind.HTTP, "no upgrade", status)) is expected


def test_the_rest() -> None:
    assert fate(Ending(Kind.NETWORK, "reset")) is Fate.RETRY
    assert fate(Ending(Kind.CERTIFICATE, "self-signed")) is Fate.STOP
    assert fate(CLOSED_HERE) is Fate.STOP


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (CLOSED_HERE, ClosedError),
        (Ending(Kind.CLOSE, "invalid token", 3500), UnauthorizedError),
        (Ending(Kind.CLOSE, "permission denied", 3507), UnauthorizedError),
        (Ending(Kind.CLOSE, "force disconnect", 3503), DisconnectedError),
        (Ending(Kind.CLOSE, "unheard of", 4999), DisconnectedError),
        (Ending(Kind.ERROR, "token expired", 109), UnauthorizedError),
        (Ending(Kind.ERROR, "unknown channel", 102), RejectedError),
        (Ending(Kind.HTTP, "the server did not upgrade", 401), UnauthorizedError),
        (Ending(Kind.HTTP, "the server did not upgrade", 404), DisconnectedError),
        (Ending(Kind.NETWORK, "refused"), DisconnectedError),
        (Ending(Kind.CERTIFICATE, "self-signed"), DisconnectedError),
    ],
    ids=str,
)
def test_an_exception_names_what_happened_where_and_what_to_do(ending: Ending, kind: type[ClientError]) -> None:
    error = error_of(ending, channel="chat:1")
    assert type(error) is kind
    assert (error.channel, error.code) == ("chat:1", ending.code)
    assert ending.reason in str(error)
    assert "chat:1" in str(error)
    assert str(error).endswith(error.to_do)
    assert error.to_do
