"""The code tables against the tables of protocol.md section 4."""

import json
import re
from pathlib import Path

import pytest

from gateway.protocol import codes
from gateway.protocol.codes import Disconnect, ErrorCode, Unsubscribed

DOCUMENT = Path(codes.__file__).with_name("protocol.md").read_text(encoding="utf-8")


def rows(section: str) -> list[list[str]]:
    """Read the table of a section, without its two head lines."""
    body = DOCUMENT.split(f"\n### {section} ", maxsplit=1)[1].split("\n#", maxsplit=1)[0]
    lines = [line for line in body.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_errors_are_those_of_the_document() -> None:
    documented = [ErrorCode(int(code), text, temporary=mark == "**true**") for code, text, mark, _ in rows("4.1")]
    assert list(codes.ERRORS) == documented


def test_disconnects_are_those_of_the_document() -> None:
    assert list(codes.DISCONNECTS) == [Disconnect(int(code), reason) for code, reason, _, _ in rows("4.2")]


def test_unsubscribes_are_those_of_the_document_that_are_sent() -> None:
    documented = [(code, reason) for code, reason, sent in rows("4.3") if not sent.startswith("never")]
    assert list(codes.UNSUBSCRIBES) == [Unsubscribed(int(code), reason) for code, reason in documented]


def test_the_tables_of_the_document_were_found() -> None:
    assert [len(rows(section)) for section in ("4.1", "4.2", "4.3")] == [14, 22, 5]


@pytest.mark.parametrize("disconnect", codes.DISCONNECTS, ids=str)
def test_a_client_comes_back_after_a_disconnect_if_the_document_says_so(disconnect: Disconnect) -> None:
    [marked] = [reconnect for code, _, reconnect, _ in rows("4.2") if int(code) == disconnect.code]
    assert (disconnect.code in range(3000, 3500)) == (marked == "yes")
    assert (disconnect.code in range(3500, 4000)) == (marked == "no")


@pytest.mark.parametrize("disconnect", codes.DISCONNECTS, ids=str)
def test_a_reason_fits_a_close_frame_and_is_never_read_as_json(disconnect: Disconnect) -> None:
    assert 0 < len(disconnect.reason.encode()) <= 123
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(disconnect.reason)


@pytest.mark.parametrize(
    ("kind", "table"),
    [(ErrorCode, codes.ERRORS), (Disconnect, codes.DISCONNECTS), (Unsubscribed, codes.UNSUBSCRIBES)],
    ids=["errors", "disconnects", "unsubscribes"],
)
def test_each_named_code_stands_in_its_table_once(
    kind: type, table: tuple[ErrorCode | Disconnect | Unsubscribed, ...]
) -> None:
    named = [value for name, value in vars(codes).items() if name.isupper() and isinstance(value, kind)]
    assert named == list(table)
    numbers = [value.code for value in table]
    assert numbers == sorted(set(numbers))


def test_every_code_that_the_lifecycle_names_is_in_a_table() -> None:
    """A number there that no table has would be a code without a sentence."""
    known = {each.code for each in (*codes.ERRORS, *codes.DISCONNECTS, *codes.UNSUBSCRIBES)}
    lifecycle = DOCUMENT.split("\n## 3. ", maxsplit=1)[1].split("\n## 4. ", maxsplit=1)[0]
    told = {int(number) for number in re.findall(r"(?:→|disconnect|error|code) \*{0,2}(\d{3,4})\b", lifecycle)}
    assert told > {102, 103, 105, 107, 3010, 3500, 3501, 3502}
    assert told - known == set()
