"""How channel names are read (protocol.md 6.1)."""

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.domain.channels import Channel, ChannelOptions, Channels, ChannelSettings, DataFormat, Namespace
from gateway.domain.windows import Deviation, WindowOptions
from gateway.protocol import codes

LIMITED = Namespace(name="limited", allow_user_limited_channels=True)
SETTINGS = ChannelSettings(
    without_namespace=ChannelOptions(allow_user_limited_channels=True),
    namespaces=[
        Namespace(name="chat"),
        LIMITED,
        Namespace(name="room", channel_regex="^[a-z]+$"),
        Namespace(name="intl", channel_regex="^.+$"),
        Namespace(name="A-z_0.9"),
    ],
)
CHANNELS = Channels(SETTINGS)

BAD = False
"""Reads better in the tables than a bare False: a name that no client may use."""


def read(name: str, channels: Channels = CHANNELS) -> Channel:
    channel = channels.resolve(name)
    assert isinstance(channel, Channel), f"{name!r}: {channel}"
    return channel


@pytest.mark.parametrize(
    ("name", "namespace", "is_private"),
    [
        ("news", "", False),
        ("$news", "", True),
        ("chat:x", "chat", False),
        ("$chat:x", "chat", True),
        ("chat:", "chat", False),
        ("chat:a:b", "chat", False),
        ("chat:$x", "chat", False),
        ("A-z_0.9:x", "A-z_0.9", False),
        ("chat", "", False),
        ("ch$at", "", False),
        ("$", "", True),
        ("$$news", "", True),
        ("#42", "", False),
        ("limited:#42", "limited", False),
        ("x#limited:42", None, False),
        ("nope:x", None, False),
        ("$nope:x", None, False),
        ("Chat:x", None, False),
        ("chat :x", None, False),
        ("$$chat:x", None, False),
        (":x", None, False),
        ("$:x", None, False),
        (":", None, False),
        ("::", None, False),
    ],
    ids=repr,
)
def test_the_namespace_is_what_precedes_the_first_boundary(
    name: str,
    namespace: str | None,
    is_private: bool,  # noqa: FBT001
) -> None:
    if namespace is None:
        assert CHANNELS.resolve(name) == codes.UNKNOWN_CHANNEL
        return
    channel = read(name)
    assert (channel.name, channel.namespace, channel.is_private) == (name, namespace, is_private)
    named = {each.name: each for each in SETTINGS.namespaces}
    assert channel.options == (named[namespace] if namespace else SETTINGS.without_namespace)


@pytest.mark.parametrize(
    ("name", "users"),
    [
        ("limited:x#42", ("42",)),
        ("limited:x#41,42", ("41", "42")),
        ("limited:#42", ("42",)),
        ("limited:x#41#42,43", ("42", "43")),
        ("limited:x#", ("",)),
        ("limited:x#42,", ("42", "")),
        ("limited:x", None),
        ("limited:", None),
        ("$limited:x#42", ("42",)),
        ("#42", ("42",)),
        ("news", None),
        ("chat:x#42", None),
        ("chat:#", None),
    ],
    ids=repr,
)
def test_users_are_listed_after_the_last_boundary_where_the_namespace_wants_it(
    name: str, users: tuple[str, ...] | None
) -> None:
    assert read(name).users == users


@pytest.mark.parametrize(
    ("name", "is_well_formed"),
    [
        ("news", True),
        ("a b", True),
        ("!~", True),
        ("$news", True),
        ("x" * 255, True),
        ("x" * 256, BAD),
        ("chat:" + "x" * 250, True),
        ("chat:" + "x" * 251, BAD),
        ("$" + "x" * 254, True),
        ("$" + "x" * 255, BAD),
        ("käse", BAD),
        ("chat:käse", BAD),
        ("chat:a\x00", BAD),
        ("chat:a\n", BAD),
        ("chat:\x7f", BAD),
        ("\ud800", BAD),
        ("room:abc", True),
        ("$room:abc", True),
        ("room:", BAD),
        ("room:Abc", BAD),
        ("room:abc1", BAD),
        ("room:a:b", BAD),
        ("intl:käse", True),
        ("intl:😀", True),
        ("intl:", BAD),
        ("intl:" + "ä" * 125, True),
        ("intl:" + "ä" * 125 + "x", BAD),
        ("intl:" + "😀" * 62 + "xx", True),
        ("intl:" + "😀" * 62 + "xxx", BAD),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_name_is_printable_ascii_or_fits_the_pattern_and_is_short_enough(
    name: str,
    is_well_formed: bool,  # noqa: FBT001
) -> None:
    assert read(name).is_well_formed is is_well_formed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat/x", ("chat", False, None)),
        ("!chat/x", ("chat", True, None)),
        ("chat/x@41;42", ("chat", False, ("41", "42"))),
        ("chat:x", ("", False, None)),
        ("$chat/x", None),
    ],
)
def test_the_separators_can_be_chosen(name: str, expected: tuple[str, bool, tuple[str, ...] | None] | None) -> None:
    channels = Channels(
        ChannelSettings(
            namespace_boundary="/",
            private_prefix="!",
            user_boundary="@",
            user_separator=";",
            namespaces=[Namespace(name="chat", allow_user_limited_channels=True)],
        )
    )
    channel = channels.resolve(name)
    if expected is None:
        assert channel == codes.UNKNOWN_CHANNEL
    else:
        assert isinstance(channel, Channel)
        assert (channel.namespace, channel.is_private, channel.users) == expected


@pytest.mark.parametrize(("namespace", "channel"), [("", "#42"), ("limited", "limited:#42")])
def test_a_personal_channel_is_for_its_user_alone(namespace: str, channel: str) -> None:
    assert CHANNELS.personal_channel("42", namespace=namespace) == channel
    assert read(channel).users == ("42",)


def test_namespaces_are_listed_with_none_first() -> None:
    assert CHANNELS.namespaces == ("", "chat", "limited", "room", "intl", "A-z_0.9")


def test_a_name_is_read_once() -> None:
    assert read("chat:again") is read("chat:again")


def test_names_that_were_read_are_kept_up_to_a_bound() -> None:
    channels = Channels(ChannelSettings())
    first = read("first", channels)
    for number in range(70_000):
        read(str(number), channels)
    again = read("first", channels)
    assert again == first
    assert again is not first


@pytest.mark.parametrize("name", ["", "a", "a:b", "a b", "$ab", "ab#", "äb", "ab\n"], ids=repr)
def test_a_namespace_without_a_usable_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Namespace(name=name)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"namespaces": [{"name": "ab"}, {"name": "cd"}, {"name": "ab"}]}, "ab is defined more than once"),
        ({"namespaces": [{}]}, "namespaces.0.name"),
        ({"namespaces": [{"name": "ab", "channel_regex": "("}]}, "not a regular expression"),
        ({"namespaces": [{"name": "ab", "publication_data_format": "xml"}]}, "publication_data_format"),
        ({"without_namespace": {"processors": ["server_time"], "publication_data_format": "binary"}}, "'binary'"),
        ({"without_namespace": {"processors": ["server_time"], "publication_data_format": "any"}}, "'any'"),
        ({"without_namespace": {"processors": ["server_time"], "handler": "echo"}}, "handler and processors"),
        ({"without_namespace": {"processors": ["scale", "scale"]}}, "scale is named more than once"),
        ({"without_namespace": {"processor_options": {"x": {}}}}, "that is not x"),
        ({"without_namespace": {"processor_options": {"x": 5}}}, "processor_options.x"),
        ({"without_namespace": {"statistics_window": 1}}, "greater than or equal to 2"),
        ({"without_namespace": {"statistics_window": 1001}}, "less than or equal to 1000"),
        ({"without_namespace": {"statistics_std": "both"}}, "'population', 'sample'"),
        ({"without_namespace": {"scale_factor": float("inf")}}, "finite number"),
        ({"without_namespace": {"name": "x"}}, "without_namespace.name"),
        ({"without_namespace": {"allow_subscribe_for_clients": True}}, "allow_subscribe_for_clients"),
        ({"without_namespace": {"allow_subscribe_for_client": "yes"}}, "allow_subscribe_for_client"),
        ({"namespace_boundary": ""}, "namespace_boundary"),
        ({"private_prefix": "$$"}, "private_prefix"),
        ({"max_length": 0}, "max_length"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_option_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ChannelSettings.model_validate(table)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("text", "data_format", "is_unchecked"),
    [
        ("", DataFormat.VALID_JSON, False),
        ("json", DataFormat.JSON, False),
        ("json_object", DataFormat.JSON_OBJECT, False),
        ("binary", DataFormat.BINARY, False),
        ("any", DataFormat.ANY, True),
    ],
)
def test_a_data_format_is_read_from_text(text: str, data_format: DataFormat, is_unchecked: bool) -> None:  # noqa: FBT001
    options = ChannelOptions.model_validate({"publication_data_format": text})
    assert (options.publication_data_format, options.is_unchecked) == (data_format, is_unchecked)


def test_everything_is_forbidden_until_it_is_allowed() -> None:
    allowed = {name for name, value in ChannelOptions() if name.startswith("allow_") and value}
    assert allowed == set()


def test_a_channel_has_a_window_where_statistics_are_named() -> None:
    measured = {"processors": ["statistics"], "statistics_window": 5, "statistics_std": "sample"}
    channels = Channels(
        ChannelSettings.model_validate(
            {
                "history_meta_ttl": "1h",
                "namespaces": [
                    {"name": "measured", **measured},
                    {"name": "kept", **measured, "history_meta_ttl": "2h"},
                    {"name": "timed", "processors": ["server_time"]},
                ],
            }
        )
    )
    assert [read(name, channels).window for name in ("measured:a", "kept:a", "timed:a", "a")] == [
        WindowOptions(size=5, deviation=Deviation.SAMPLE, ttl_s=3600.0),
        WindowOptions(size=5, deviation=Deviation.SAMPLE, ttl_s=7200.0),
        None,
        None,
    ]
