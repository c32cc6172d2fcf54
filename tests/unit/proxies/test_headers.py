"""Headers of clients, as far as backends may be told them."""

import pytest

from gateway.proxies.headers import ClientHeaders, forwarded, of_command, of_request

NAMES = frozenset({"cookie", "x-name", "authorization"})


def test_of_a_request_those_are_kept_that_somebody_forwards_whatever_their_case_and_number() -> None:
    given = [("Cookie", "a=b"), ("Origin", "https://x"), ("COOKIE", "c=d"), ("X-Name", "v")]
    assert of_request(given, NAMES) == (("cookie", "a=b"), ("cookie", "c=d"), ("x-name", "v"))
    assert of_request(given, frozenset()) == ()


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain", "plain"),
        ("tab\tbed", "tab\tbed"),
        ("Zoë".encode().decode("latin-1"), "Zoë"),
        ("Zo\xeb", None),
        ("", ""),
    ],
    ids=["ASCII", "a tab", "UTF-8", "Latin 1", "empty"],
)
def test_a_value_goes_on_as_the_same_bytes_or_not_at_all(value: str, sent: str | None) -> None:
    assert of_request([("X-Name", value)], NAMES) == (() if sent is None else (("x-name", sent),))


@pytest.mark.parametrize("value", ["a\r\nHost: evil", "a\nb", "a\rb", "nul\0", "del\x7f", "\x1b[2J"])
def test_what_could_begin_another_header_is_left_out(value: str) -> None:
    assert of_command({"X-Name": value, "authorization": "Bearer x"}, NAMES) == (("authorization", "Bearer x"),)


def test_of_a_command_those_are_kept_that_somebody_forwards() -> None:
    assert of_command({"Authorization": "é", "other": "1"}, NAMES) == (("authorization", "é"),)
    assert of_command({"Authorization": "é"}, frozenset()) == ()


CLIENT = ClientHeaders(
    given=(("cookie", "a=b"), ("authorization", "real")), emulated=(("authorization", "forged"), ("x-name", "v"))
)


@pytest.mark.parametrize(
    ("given", "emulated", "static", "sent"),
    [
        ([], [], {}, []),
        (["cookie"], [], {}, [("cookie", "a=b")]),
        # The two lists are apart: a header of the request can't be forged by the command.
        (["x-name"], [], {}, []),
        ([], ["cookie"], {}, []),
        ([], ["authorization"], {}, [("authorization", "forged")]),
        (["authorization"], ["authorization"], {}, [("authorization", "real")]),
        ([], [], {"X-Key": "1"}, [("X-Key", "1")]),
        (["authorization"], [], {"Authorization": "static"}, [("authorization", "real")]),
        ([], ["x-name"], {"X-Name": "static", "X-Key": "1"}, [("x-name", "v"), ("X-Key", "1")]),
    ],
)
def test_the_request_wins_over_the_command_and_both_over_what_is_static(
    given: list[str], emulated: list[str], static: dict[str, str], sent: list[tuple[str, str]]
) -> None:
    assert forwarded(CLIENT, given=frozenset(given), emulated=frozenset(emulated), static=static) == sent
