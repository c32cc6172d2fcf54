from pathlib import Path

import pytest

from loadtest import results
from loadtest.cli import main
from loadtest.results import Latency
from tests.support.load_runs import RUN, changed


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.json"
    results.write(RUN, path)
    return path


def test_a_report_is_written_beside_its_run_or_where_one_wants_it(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run_file)]) == 0
    assert main(["report", str(run_file), "--output", str(tmp_path / "new" / "folder")]) == 0

    folders = [tmp_path, tmp_path / "new" / "folder"]
    told = "mixed, failed: 1 of 2 thresholds are missed: duplicated=0.\n"
    assert capsys.readouterr().out == "".join(
        f"{told}{folder / 'mixed.html'}\n{folder / 'mixed.md'}\n" for folder in folders
    )
    assert all((folder / name).stat().st_size for folder in folders for name in ("mixed.html", "mixed.md"))


def test_two_files_are_compared(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.write(RUN, tmp_path / "later.json")
    assert main(["compare", str(run_file), str(tmp_path / "later.json")]) == 0
    assert capsys.readouterr().out.startswith("mixed: later against mixed.\n\n| | mixed | later | ratio |\n")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "can't read {path}: No such file or directory.\n"),
        (b'{"format": 99}', "{path} is of format 99, and this program reads format 1.\n"),
        (b'{"format": 1, "started', "{path} holds no results of a load test, or not all of them: "),
    ],
)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_a_file_that_is_no_run_is_told_in_a_sentence(
    command: str, content: bytes | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_bytes(content)
    files = [str(path)] * (2 if command == "compare" else 1)

    assert main([command, *files]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert told.err.startswith(sentence.format(path=path))


def test_a_damaged_histogram_is_told_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "damaged.json"
    damaged = Latency(delivery=RUN.latency.delivery[:40], acknowledgement="", model="open")
    results.write(changed(RUN, latency=damaged), path)
    assert main(["report", str(path)]) == 2
    assert capsys.readouterr().err.startswith("The results are damaged: no histogram: ")


def test_a_folder_that_can_not_be_written_is_told_in_a_sentence(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run_file), "--output", str(run_file / "below")]) == 2
    assert capsys.readouterr().err == f"can't write into {run_file / 'below'}: Not a directory.\n"
