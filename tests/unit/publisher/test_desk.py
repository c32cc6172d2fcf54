"""What may be published, and what it becomes; nothing is sent here."""

import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.broker.contract import PublishOptions
from gateway.domain.channels import ChannelSettings
from gateway.domain.stream import StreamOptions
from gateway.messaging.publishing import Draft
from gateway.protocol.json_codec import is_json
from gateway.protocol.messages import Publication
from gateway.publisher import PublishRejectedError, UnavailableError
from gateway.publisher.desk import Desk, Extras

NOW_S = 1000.0
UNIX_S = 1_700_000_000.25
SETTINGS = ChannelSettings.model_validate(
    {
        "namespaces": [
            {"name": "chat", "history_size": 5, "history_ttl": 60, "history_meta_ttl": 600},
            {"name": "objects", "publication_data_format": "json_object"},
            {"name": "binary", "publication_data_format": "binary"},
            {"name": "lax", "publication_data_format": "any"},
            {"name": "timed", "processors": ["server_time"]},
        ]
    }
)
STREAM = StreamOptions(size=5, ttl_s=60, meta_ttl_s=600)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Reading(pydantic.BaseModel):
    at: dt.datetime
    celsius: float


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(SETTINGS, max_depth=3, monotonic=lambda: NOW_S, unix=lambda: UNIX_S)


def draft(desk: Desk, channel: str, data: Any, **extras: Any) -> Draft:
    (only,) = desk.draft([channel], data, Extras(**extras))
    return only


@pytest.mark.parametrize(
    ("data", "written"),
    [
        (None, b"null"),
        (1, b"1"),
        ("text", b'"text"'),
        ({"a": [1, 2.5, True]}, b'{"a":[1,2.5,true]}'),
        (Point(1, 2), b'{"x":1,"y":2}'),
        (Colour.RED, b'"red"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("1.10"), b'"1.10"'),
        ((dt.date(2026, 1, 2),), b'["2026-01-02"]'),
        (
            {"reading": Reading(at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC), celsius=1)},
            b'{"reading":{"at":"2026-01-02T00:00:00Z","celsius":1.0}}',
        ),
        (float("nan"), b"null"),
        (b'{"spelled" :  1.0}', b'{"spelled" :  1.0}'),
        (bytearray(b"1"), b"1"),
        (memoryview(b"1"), b"1"),
    ],
)
def test_a_value_is_written_as_json_and_bytes_are_left_alone(desk: Desk, data: Any, written: bytes) -> None:
    made = draft(desk, "news", data)

    assert (made.channel.name, made.accepted_at_s, made.options) == ("news", NOW_S, PublishOptions())
    assert made.publication == Publication(data=Raw(written))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(st.characters(codec="utf-8")), st.lists))
def test_whatever_is_written_is_json(value: Any) -> None:
    made = draft(Desk(ChannelSettings()), "news", value)

    assert is_json(bytes(made.publication.data))


def test_a_namespaces_options_and_what_is_asked_for_go_along(desk: Desk) -> None:
    extras = {"idempotency_key": "k", "version": 2**64 - 1, "version_epoch": "e", "tags": {"a": "b"}}
    made = draft(desk, "chat:a", 1, **extras)

    assert made.options == PublishOptions(STREAM, idempotency_key="k", version_epoch="e")
    assert made.publication == Publication(data=Raw(b"1"), tags={"a": "b"}, version=2**64 - 1)


@pytest.mark.parametrize(
    ("data", "written"),
    [({"x": 1}, b'{"x":1,"server_time":1700000000.25}'), (b"[1]", b'{"data":[1],"server_time":1700000000.25}')],
)
def test_a_namespaces_processors_add_their_fields(desk: Desk, data: Any, written: bytes) -> None:
    assert bytes(draft(desk, "timed:a", data).publication.data) == written


@pytest.mark.parametrize(("channel", "data"), [("binary:a", b"\xff\x00"), ("binary:a", b""), ("lax:a", b"\xff")])
def test_bytes_go_where_bytes_are_carried(desk: Desk, channel: str, data: bytes) -> None:
    assert bytes(draft(desk, channel, data).publication.data) == data


@pytest.mark.parametrize("channel", ["é", "x" * 300, "$private", "a\nb", "chat:#42"])
def test_a_server_may_use_names_that_clients_may_not(desk: Desk, channel: str) -> None:
    assert draft(desk, channel, 1).channel.name == channel


@pytest.mark.parametrize(
    ("channel", "data", "extras", "code", "message"),
    [
        ("", 1, {}, 107, "channel '': a channel has a name"),
        (7, 1, {}, 107, "channel 7: a channel has a name"),
        (None, 1, {}, 107, "channel None: a channel has a name"),
        ("news", 1, {"tags": ["a"]}, 107, "channel 'news': tags are a table of texts"),
        (
            "nope:a",
            1,
            {},
            102,
            "channel 'nope:a': its namespace is not configured (channel.namespaces has chat, objects, binary, ",
        ),
        (
            "news",
            b"no JSON",
            {},
            107,
            "channel 'news': it takes JSON, nested at most 3 deep, and this is something else",
        ),
        ("news", b"", {}, 107, "channel 'news': it takes JSON, nested at most 3 deep, and this is something else"),
        ("news", [[[[]]]], {}, 107, "channel 'news': it takes JSON, nested at most 3 deep, and this is something else"),
        (
            "objects:a",
            [1],
            {},
            107,
            "channel 'objects:a': it takes JSON objects, nested at most 3 deep, and this is something else",
        ),
        ("binary:a", {"x": 1}, {}, 107, "channel 'binary:a': it takes bytes, and this is something else"),
        ("lax:a", b"", {}, 107, "channel 'lax:a': it takes anything but nothing, and this is something else"),
        (
            "timed:a",
            rb'"\ud800"',
            {},
            107,
            "channel 'timed:a': it takes JSON, nested at most 3 deep, that its processors understand (server_time)",
        ),
        ("news", object(), {}, 107, "channel 'news': the data can't be written as JSON: object is none of the types "),
        ("news", {1.5: 2, (): 1}, {}, 107, "channel 'news': the data can't be written as JSON: "),
        ("news", "\ud800", {}, 107, "channel 'news': the data can't be written as JSON: "),
        ("news", 1, {"version": -1}, 107, "channel 'news': a version is a number up to 18446744073709551615"),
        ("news", 1, {"version": 2**64}, 107, "channel 'news': a version is a number up to 18446744073709551615"),
        ("news", 1, {"version": True}, 107, "channel 'news': a version is a number up to 18446744073709551615"),
        ("news", 1, {"version": "1"}, 107, "channel 'news': a version is a number up to 18446744073709551615"),
        ("news", 1, {"tags": {"a": 1}}, 107, "channel 'news': keys and tags are texts"),
        ("news", 1, {"tags": {"\ud800": "a"}}, 107, "channel 'news': keys and tags are texts"),
        ("news", 1, {"idempotency_key": 7}, 107, "channel 'news': keys and tags are texts"),
    ],
)
def test_what_will_not_do_is_rejected_in_one_line(
    desk: Desk, channel: Any, data: Any, extras: dict[str, Any], code: int, message: str
) -> None:
    with pytest.raises(PublishRejectedError) as rejected:
        draft(desk, channel, data, **extras)

    assert (rejected.value.channel, rejected.value.error.code) == (channel, code)
    assert str(rejected.value).startswith(message)
    assert "\n" not in str(rejected.value)


def test_a_structure_that_holds_itself_is_rejected(desk: Desk) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PublishRejectedError, match="can't be written as JSON"):
        draft(desk, "news", endless)


def test_a_broadcast_is_drafted_for_all_channels_or_for_none(desk: Desk) -> None:
    assert [each.channel.name for each in desk.draft(["news", "chat:a", "news"], 1, Extras())] == [
        "news",
        "chat:a",
        "news",
    ]
    assert desk.draft([], object(), Extras()) == []
    with pytest.raises(PublishRejectedError, match="channel 'objects:a'"):
        desk.draft(["news", "objects:a", "nope:a"], 1, Extras())


def test_a_text_is_no_list_of_channels(desk: Desk) -> None:
    with pytest.raises(PublishRejectedError, match="channel 'news': a broadcast takes a list of channels"):
        desk.draft("news", 1, Extras())


def test_a_failure_of_a_processor_of_ones_own_names_the_channel() -> None:
    settings = ChannelSettings.model_validate({"without_namespace": {"processors": ["unheard_of"]}})
    with pytest.raises(PublishRejectedError, match=r"^channel 'news': one of its processors failed: .*unheard_of"):
        draft(Desk(settings), "news", 1)


def test_what_is_not_available_says_whether_a_second_try_may_double() -> None:
    known = UnavailableError(["a"], "it rains", may_be_published=False)
    unknown = UnavailableError(["a", "b", "c"], "it rains", may_be_published=True)

    assert (str(known), known.channels) == ("channel 'a': it rains; nothing was published: try again", ("a",))
    assert unknown.channels == ("a", "b", "c")
    assert str(unknown) == (
        "channel 'a' and 2 more: it rains; it may have been published: try again with the same idempotency_key"
    )
