from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from gateway.messaging.extensions import ExtensionError, Extensions, one_line
from gateway.messaging.handlers import installed_handlers
from gateway.messaging.processors import installed_processors
from tests.support.extensions import on_the_path, write_distribution

GROUP = "some.group"


def extensions(*points: tuple[str, str], refused: Any = None) -> Extensions[Any]:
    found = [EntryPoint(name, value, GROUP) for name, value in points]
    return Extensions(
        GROUP,
        {"own": "built in"},
        refuse=lambda each: "is refused" if each is refused else None,
        installed=lambda group: [each for each in found if each.group == group],
    )


def test_what_is_built_in_and_what_is_installed_are_one() -> None:
    each = extensions(("len", "builtins:len"), ("abs", "builtins:abs"))
    assert (list(each), len(each)) == (["abs", "len", "own"], 3)
    assert (each["own"], each["len"], each["abs"]) == ("built in", len, abs)


def test_what_is_built_in_wins() -> None:
    each = extensions(("own", "builtins:len"))
    assert (list(each), len(each), each["own"]) == (["own"], 1, "built in")


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nobody"):
        extensions()["nobody"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("no_such_module:x", "no_such_module:x can't be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("builtins:no_such", "builtins:no_such can't be loaded: AttributeError: "),
        ("builtins:len", "builtins:len is refused"),
    ],
)
def test_a_broken_one_is_one_line_when_it_is_named_and_harms_no_other(value: str, said: str) -> None:
    each = extensions(("broken", value), ("abs", "builtins:abs"), refused=len)
    assert (list(each), each["abs"]) == (["abs", "broken", "own"], abs)
    with pytest.raises(ExtensionError) as raised:
        each["broken"]
    assert str(raised.value).startswith(said)
    assert "\n" not in str(raised.value)


def test_two_packages_that_offer_one_name_are_told_apart_by_nobody() -> None:
    each = extensions(("twin", "builtins:len"), ("twin", "builtins:abs"))
    with pytest.raises(ExtensionError, match="offered more than once: builtins:abs, builtins:len"):
        each["twin"]


def test_one_package_that_is_found_twice_is_one() -> None:
    assert extensions(("twin", "builtins:len"), ("twin", "builtins:len"))["twin"] is len


def test_the_entry_points_are_read_once_and_only_when_asked_for() -> None:
    reads = []

    def read(group: str) -> Iterator[EntryPoint]:
        reads.append(group)
        yield EntryPoint("len", "builtins:len", group)

    each: Extensions[Any] = Extensions(GROUP, {"own": 1}, refuse=lambda _: None, installed=read)
    assert (each["own"], reads) == (1, [])
    assert (each["len"], each["len"], list(each), reads) == (len, len, ["len", "own"], [GROUP])


@pytest.mark.parametrize(
    ("error", "text"),
    [(ValueError("a\n  b"), "ValueError: a b"), (ValueError(), "ValueError"), (KeyError("x"), "KeyError: 'x'")],
)
def test_an_error_in_one_line(error: Exception, text: str) -> None:
    assert one_line(error) == text


def test_what_a_distribution_offers_is_found(tmp_path: Path) -> None:
    (tmp_path / "offered_here.py").write_text(
        "class Doubled:\n"
        "    def __call__(self, value, *, unix_s):\n"
        "        return value | {'twice': 2 * value['data']}\n"
        "class Answering:\n"
        "    async def __call__(self, request):\n"
        "        return request.data\n"
        "async def answer(request):\n"
        "    return request.data\n"
        "def no_answer(request):\n"
        "    return request.data\n"
        "five = 5\n"
    )
    write_distribution(
        tmp_path,
        {
            "gateway.processors": {"doubled": "offered_here:Doubled", "five": "offered_here:five"},
            "gateway.handlers": {
                "answer": "offered_here:answer",
                "no_answer": "offered_here:no_answer",
                "answering": "offered_here:Answering",
            },
        },
    )
    with on_the_path(tmp_path):
        processors, handlers = installed_processors(), installed_handlers()
        assert processors["doubled"]()({"data": 2}, unix_s=0.0) == {"data": 2, "twice": 4}
        assert handlers["answer"].__name__ == "answer"  # type: ignore[attr-defined]
        with pytest.raises(ExtensionError, match="offered_here:five makes no processors"):
            processors["five"]
        for name in ("no_answer", "answering"):
            with pytest.raises(ExtensionError, match="is no async function"):
                handlers[name]
    assert "doubled" not in installed_processors()
