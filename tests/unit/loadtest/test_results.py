from pathlib import Path

import msgspec
import pytest

from loadtest import results
from loadtest.results import (
    Book,
    Costs,
    Latency,
    Ledger,
    Machine,
    Phases,
    Results,
    ResultsError,
    Run,
    Second,
    Target,
    Verdict,
    Verification,
)

RESULTS = Results(
    started_at="2026-11-25T22:00:00Z",
    is_interrupted=False,
    machine=Machine(system="Linux", architecture="x86_64", cores=2, memory_bytes=1, python="3.11", load_before=0.0),
    target=Target(addresses=["ws://127.0.0.1:8000/connection/websocket"], protocol="json", is_own=True),
    run=Run(scenario="fanout", description="", parameters={"clients": 2}, workers=1, seed=1),
    phases=Phases(end_s=1.0),
    timeline=[Second(at_s=0, phase="plateau", delivered=3, errors={"publish: unanswered": 1})],
    latency=Latency(delivery="", acknowledgement="", model="open"),
    verification=Verification(publications=3, refused=0, unanswered=0, delivered=3),
    ledger=Ledger(books=[], delivered=0, received=3, verdict="No metrics were read.", is_agreed=None),
    costs=Costs(),
    verdict=Verdict(is_passed=True, checks=[]),
)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    results.write(RESULTS, path)
    assert results.read(path) == RESULTS
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't read"),
        (b"", "holds no results"),
        (b"[1]", "holds no results"),
        (b'{"format": 99}', "is of format 99, and this program reads format 1"),
        (b'{"format": 1}', "holds no results"),
        (msgspec.json.encode(RESULTS)[:200], "holds no results"),
        (b'\xff{"format": 1}', "holds no results"),
    ],
)
def test_a_file_that_holds_no_results_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultsError, match=sentence) as caught:
        results.read(path)
    assert "\n" not in str(caught.value)


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"can't write .*nowhere"):
        results.write(RESULTS, tmp_path / "nowhere" / "run.json")


def test_a_book_is_balanced_when_every_delivery_is_accounted_for() -> None:
    book = Book(
        server="node1",
        accepted=1,
        received=1,
        due=10,
        delivered=7,
        filtered=1,
        dropped={"slow": 1},
        queued=1,
        is_complete=True,
    )
    assert book.is_balanced
    assert not msgspec.structs.replace(book, due=11).is_balanced
