from pathlib import Path

from loadtest.report.summary import summary, table
from loadtest.results import Check, Verdict
from tests.support.load_runs import RUN, changed

GOLDEN = Path(__file__).with_name("summary.md")


def test_the_summary_is_the_golden_one() -> None:
    assert summary(RUN) == GOLDEN.read_text(encoding="utf-8")


def test_a_run_without_thresholds_has_no_verdict() -> None:
    unstated = changed(RUN, verdict=Verdict(is_passed=True, checks=[]), chaos=[], notes=[], is_interrupted=True)
    lines = summary(unstated).splitlines()
    assert lines[0] == "# mixed: no verdict"
    assert lines[4] == (
        "No thresholds were stated (--assert). It was interrupted: what follows is what was measured until then."
    )
    assert "## What was done to the servers" not in lines


def test_a_run_that_met_its_thresholds_has_passed() -> None:
    met = changed(RUN, verdict=Verdict(is_passed=True, checks=[Check(text="lost=0", measured=0, limit=0, is_met=True)]))
    assert summary(met).splitlines()[0::4][:2] == ["# mixed: passed", "The only threshold is met."]


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a", ""), [("b|c", "d\ne")]) == ["| a | |", "|---|---|", r"| b\|c | d e |", ""]
