"""What clients call themselves: a few labels, whatever they say."""

import pytest

from gateway.domain.names import Called, Names


@pytest.mark.parametrize(
    ("name", "version", "called"),
    [
        ("js", "", Called("js")),
        ("js", "5.3.0", Called("js", "5.3.0")),
        ("js", "0.0.1", Called("js", "other")),
        ("", "", Called()),
        ("", "5.3.0", Called("", "5.3.0")),
        ("", "0.0.1", Called("", "other")),
        ("x" * 60_000, "5.3.0", Called("other")),
        ("evil", "0.0.1", Called("other")),
    ],
)
def test_only_what_is_listed_is_told_apart(name: str, version: str, called: Called) -> None:
    assert Names(["js", "go"], ["5.3.0"]).of(name, version) == called


def test_all_clients_of_one_kind_share_what_they_are_called() -> None:
    names = Names(["js"], ["5.3.0"])
    for each in (("js", "5.3.0"), ("js", "?"), ("?", "?"), ("", "")):
        assert names.of(*each) is names.of(*each)
