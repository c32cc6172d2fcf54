import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.channels import ChannelOptions
from gateway.messaging.extensions import ExtensionError
from gateway.messaging.processors import (
    PROCESSORS,
    NotProcessableError,
    Pipeline,
    Processed,
    Processor,
    ProcessorFactory,
    installed_processors,
)
from gateway.protocol.json_codec import is_json

_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()
_VALUES = st.recursive(_SCALARS, lambda each: st.lists(each) | st.dictionaries(st.text(), each), max_leaves=10)


def counter() -> Processor:
    """Make a processor that counts the members."""

    def count(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        del unix_s
        return value | {"count": len(value)}

    return count


def editor(*, change: str) -> Processor:
    """Make a processor that changes its value in one of many ways."""

    def edit(value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        del unix_s
        match change:
            case "add in place":
                value["new"] = 1.0
            case "replace":
                value["a"] = 2.50
            case "deep":
                value["deep"]["x"] = 1.0
            case "drop":
                del value["a"]
            case "all":
                return {}
            case "order":
                return dict(reversed(value.items()))
            case "number":
                return {"value": 7.5}
            case "statistics":
                value["statistics"] = "mine"
            case _:
                pass
        return value

    return edit


def odd(*, fault: str) -> Processor:
    """Make a processor that is at fault, or refuses."""

    def fail(value: dict[str, Any], *, unix_s: float) -> Any:
        del unix_s
        match fault:
            case "refuse":
                raise NotProcessableError(f"{value} is not for me")
            case "raise":
                raise ValueError("a fault of its own")
            case "list":
                return [value]
            case "name":
                return {5: value}
            case "new name":
                return value | {5: value}
            case _:
                return value | {"set": {1}}

    return fail


FACTORIES: dict[str, ProcessorFactory] = {**PROCESSORS, "counter": counter, "editor": editor, "odd": odd}


def run(data: bytes, *names: str, **options: Any) -> Processed:
    return Pipeline(ChannelOptions(processors=list(names), **options), FACTORIES).run(data, unix_s=2.5)


def edited(data: bytes, change: str, *more: str) -> bytes:
    return run(data, "editor", *more, processor_options={"editor": {"change": change}}).data


# server_time.


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b'{"x":1}', b'{"x":1,"server_time":2.5}'),
        (b' {"x" : 1.50e0 ,\n"y":[1.0]} ', b'{"x" : 1.50e0 ,\n"y":[1.0],"server_time":2.5}'),
        (b'{"x":1,"x":2}', b'{"x":1,"x":2,"server_time":2.5}'),
        (b'{"n":%d}' % 10**30, b'{"n":%d,"server_time":2.5}' % 10**30),
        (
            b'{"n":0.1000000000000000055511151231257827}',
            b'{"n":0.1000000000000000055511151231257827,"server_time":2.5}',
        ),
        (b'{"server_time":"mine", "x": 1.0}', b'{"server_time":2.5,"x":1.0}'),
        (b"{}", b'{"server_time":2.5}'),
        (b" { } ", b'{"server_time":2.5}'),
        (b"[1, 2.0]", b'{"data":[1, 2.0],"server_time":2.5}'),
        (b" 1.50 ", b'{"data":1.50,"server_time":2.5}'),
        (b"null", b'{"data":null,"server_time":2.5}'),
        ('"é"'.encode(), '{"data":"é","server_time":2.5}'.encode()),
    ],
)
def test_server_time_is_added_and_the_publishers_own_text_survives(data: bytes, result: bytes) -> None:
    assert run(data, "server_time") == (result, None)


def test_the_time_is_in_whole_microseconds() -> None:
    pipeline = Pipeline(ChannelOptions(processors=["server_time"]), FACTORIES)
    assert pipeline.run(b"{}", unix_s=1_800_000_000.1234567).data == b'{"server_time":1800000000.123457}'


@given(_VALUES)
def test_the_value_survives(value: Any) -> None:
    result = json.loads(run(json.dumps(value).encode(), "server_time").data)
    assert result == (value if isinstance(value, dict) else {"data": value}) | {"server_time": 2.5}


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b"1e999", b'"\xff"', b'"\\ud800"', b"[" * 5000 + b"]" * 5000])
@pytest.mark.parametrize("name", ["server_time", "statistics", "scale", "counter"])
def test_what_can_not_be_read_is_not_processable(data: bytes, name: str) -> None:
    with pytest.raises(NotProcessableError):
        run(data, name)


# statistics: the number that goes to the broker.


@pytest.mark.parametrize(
    ("data", "result", "number"),
    [
        (b"1.50", b'{"data":1.50}', 1.5),
        (b"-0.0", b'{"data":-0.0}', 0.0),
        (b"12345678901234567890123", b'{"data":12345678901234567890123}', 12345678901234567890123.0),
        (b'{"value": 21, "unit":"C"}', b'{"value": 21, "unit":"C"}', 21.0),
        (b'{"value":1,"statistics":{"mine":1}, "x":1.0}', b'{"value":1,"x":1.0}', 1.0),
    ],
)
def test_the_number_is_the_value_or_its_field(data: bytes, result: bytes, number: float) -> None:
    found = run(data, "statistics").number
    assert run(data, "statistics") == (result, number)
    assert str(found) == str(number), "not -0.0, which the engines would tell apart"


def test_the_field_can_be_named() -> None:
    options = {"statistics_field": "t"}
    assert run(b'{"t":3,"value":4}', "statistics", **options) == (b'{"t":3,"value":4}', 3.0)
    assert run(b"5", "statistics", **options) == (b'{"data":5}', 5.0)
    with pytest.raises(NotProcessableError):
        run(b'{"value":4}', "statistics", **options)


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"true",
        b'"1"',
        b"[1]",
        b"{}",
        b'{"data":1}',
        b'{"value":null}',
        b'{"value":true}',
        b'{"value":"1"}',
        b'{"value":[1]}',
        b'{"value":1e999}',
    ],
)
def test_what_is_no_finite_number_is_refused(data: bytes) -> None:
    with pytest.raises(NotProcessableError):
        run(data, "statistics")


def test_statistics_count_what_the_processors_before_made() -> None:
    assert run(b'{"value":4}', "scale", "statistics", scale_factor=2.5).number == 10.0
    assert run(b'{"value":4}', "statistics", "scale", scale_factor=2.5).number == 4.0
    options: dict[str, Any] = {"processor_options": {"editor": {"change": "number"}}}
    assert run(b"3", "editor", "statistics", **options) == (b'{"value":7.5}', 7.5)
    assert run(b"3", "statistics", "editor", **options) == (b'{"value":7.5}', 3.0)


def test_the_name_of_statistics_is_taken_whoever_writes_it() -> None:
    options: dict[str, Any] = {"processor_options": {"editor": {"change": "statistics"}}}
    assert run(b'{"value":1.0}', "statistics", "editor", **options) == (b'{"value":1.0}', 1.0)


# scale.


@pytest.mark.parametrize(
    ("data", "result"),
    [
        (b'{"source":"a","value":2,"more":1}', b'{"source":"a","value":5.0,"processed":true}'),
        (b'{"value":-0.5}', b'{"source":"unknown","value":-1.25,"processed":true}'),
        (b'{"source": [1.50] ,"value":2}', b'{"source":[1.50],"value":5.0,"processed":true}'),
    ],
)
def test_scale_multiplies_the_value(data: bytes, result: bytes) -> None:
    assert run(data, "scale", scale_factor=2.5).data == result


@pytest.mark.parametrize("data", [b"2", b"[]", b"{}", b'{"value":"2"}', b'{"value":true}', b'{"value":1e308}'])
def test_scale_refuses_what_has_no_number_and_what_becomes_none(data: bytes) -> None:
    with pytest.raises(NotProcessableError):
        run(data, "scale", scale_factor=10.0)


# Processors of others.


def test_processors_run_in_order_each_on_what_the_one_before_made() -> None:
    assert run(b'{"x":1}', "counter", "server_time").data == b'{"x":1,"count":1,"server_time":2.5}'
    assert run(b'{"x":1}', "server_time", "counter").data == b'{"x":1,"server_time":2.5,"count":2}'


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ("nothing", b'{"a": 1.50 , "deep": {"x": 1.50}}'),
        ("add in place", b'{"a":1.50,"deep":{"x": 1.50},"new":1.0}'),
        ("replace", b'{"a":2.5,"deep":{"x": 1.50}}'),
        ("deep", b'{"a":1.50,"deep":{"x":1.0}}'),
        ("drop", b'{"deep":{"x": 1.50}}'),
        ("order", b'{"deep":{"x": 1.50},"a":1.50}'),
        ("all", b"{}"),
    ],
)
def test_what_a_processor_leaves_alone_keeps_its_text(change: str, result: bytes) -> None:
    data = edited(b'{"a": 1.50 , "deep": {"x": 1.50}}', change)
    assert json.loads(data) == json.loads(result)
    assert data.replace(b" ", b"") == result.replace(b" ", b"")


def test_what_was_no_object_can_be_changed_too() -> None:
    assert edited(b"[1.50]", "add in place") == b'{"data":[1.50],"new":1.0}'
    assert edited(b"1.50", "add in place") == b'{"data":1.50,"new":1.0}'


@given(_VALUES, st.sampled_from(["nothing", "add in place", "order", "statistics"]))
def test_what_is_written_is_json_of_the_same_value(value: Any, change: str) -> None:
    processed = edited(json.dumps(value).encode(), change)
    before = value if isinstance(value, dict) else {"data": value}
    additions: dict[str, dict[str, Any]] = {"add in place": {"new": 1.0}, "statistics": {"statistics": "mine"}}
    added = additions.get(change, {})
    assert is_json(processed)
    assert json.loads(processed) == before | added


def test_what_nests_deeper_than_can_be_compared_is_not_processable() -> None:
    with pytest.raises(NotProcessableError):
        edited(b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", "add in place")


def test_what_a_processor_refuses_is_not_processable() -> None:
    with pytest.raises(NotProcessableError, match="not for me"):
        run(b"{}", "odd", processor_options={"odd": {"fault": "refuse"}})


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [
        ("raise", ValueError, "its own"),
        ("list", TypeError, "returned list"),
        ("set", TypeError, "set"),
        ("name", TypeError, "called a member 5"),
        ("new name", TypeError, "must be str"),
    ],
)
def test_a_processors_own_fault_is_no_fault_of_the_value(fault: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as raised:
        run(b'{"a":1}', "odd", processor_options={"odd": {"fault": fault}})
    assert not isinstance(raised.value, NotProcessableError)


# Names and options.


def test_what_is_built_in() -> None:
    assert list(PROCESSORS) == ["server_time", "scale"]
    assert set(installed_processors()) >= {"server_time", "scale"}


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nobody"):
        run(b"{}", "nobody")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("editor", {}, "can't be made: TypeError: editor() missing"),
        ("editor", {"chance": "x"}, "can't be made: TypeError: editor() got an unexpected keyword argument 'chance'"),
        ("scale", {"factor": 2.0}, "has no options of its own"),
        ("server_time", {"zone": "UTC"}, "has no options of its own"),
        ("number", {}, "made int, which is no function"),
    ],
)
def test_options_that_are_none_are_told_in_one_line(name: str, options: dict[str, Any], said: str) -> None:
    number: Any = int
    factories: dict[str, ProcessorFactory] = {**FACTORIES, "number": number}
    with pytest.raises(ExtensionError) as raised:
        Pipeline(ChannelOptions(processors=[name], processor_options={name: options}), factories)
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)
