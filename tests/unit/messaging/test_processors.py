import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messaging.processors import PROCESSORS, NotProcessableError, run_processors, server_time

_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
_VALUES = st.recursive(_SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=10)


def count(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
    del unix_s
    return value | {"count": len(value)}


def refuse(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
    del unix_s
    raise NotProcessableError(f"{value} is not for me")


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b'{"x":1}', {"x": 1, "server_time": 2.5}),
        (b'{"server_time":"mine"}', {"server_time": 2.5}),
        (b"{}", {"server_time": 2.5}),
        (b"[1]", {"data": [1], "server_time": 2.5}),
        (b"null", {"data": None, "server_time": 2.5}),
        (b'"x"', {"data": "x", "server_time": 2.5}),
        (" é".encode().replace(b" ", b'"') + b'"', {"data": "é", "server_time": 2.5}),
    ],
)
def test_server_time_is_added_and_what_is_no_object_is_wrapped(data: bytes, result: dict[str, Any]) -> None:
    assert json.loads(run_processors(data, [server_time], unix_s=2.5)) == result


def test_the_time_is_in_whole_microseconds() -> None:
    assert json.loads(run_processors(b"{}", [server_time], unix_s=1_800_000_000.1234567)) == {
        "server_time": 1_800_000_000.123457
    }


def test_processors_run_in_order_each_on_what_the_one_before_made() -> None:
    assert json.loads(run_processors(b'{"x":1}', [count, server_time, count], unix_s=2.5)) == {
        "x": 1,
        "count": 3,
        "server_time": 2.5,
    }


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b'"\xff"', b"[" * 5000 + b"]" * 5000])
def test_what_can_not_be_read_is_not_processable(data: bytes) -> None:
    with pytest.raises(NotProcessableError):
        run_processors(data, [server_time], unix_s=0.0)


def test_what_a_processor_refuses_is_not_processable() -> None:
    with pytest.raises(NotProcessableError, match="not for me"):
        run_processors(b"{}", [refuse], unix_s=0.0)


def test_a_number_that_does_not_fit_is_refused_or_kept_but_never_changed() -> None:
    large = b'{"n":%d}' % 10**30
    try:
        result = run_processors(large, [count], unix_s=0.0)
    except NotProcessableError:
        return
    assert json.loads(result)["n"] == 10**30


@given(_VALUES)
def test_the_value_survives(value: Any) -> None:
    result = json.loads(run_processors(json.dumps(value).encode(), [server_time], unix_s=2.5))
    assert result == (value if isinstance(value, dict) else {"data": value}) | {"server_time": 2.5}


def test_the_names_that_a_namespace_may_use() -> None:
    assert dict(PROCESSORS) == {"server_time": server_time}
