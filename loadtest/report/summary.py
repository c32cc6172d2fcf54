"""The summary of a run in Markdown, short enough for a pull request or a README."""

from collections.abc import Iterable, Sequence

from loadtest.report import figures
from loadtest.results import Results


def summary(results: Results) -> str:
    """Return the summary of *results*."""
    told = figures.headline(results)
    lines = [
        f"# {results.run.scenario}: {told.word}",
        "",
        *([results.run.description, ""] if results.run.description else []),
        told.sentence,
        "",
    ]
    if checks := figures.checks(results):
        lines += table(("threshold", "measured", ""), [(f"`{text}`", value, word) for text, value, word, _ in checks])
    lines += table(
        ("figure", "value", ""), [(row.name, _strong(row), row.note) for row in figures.key_figures(results)]
    )
    if results.notes:
        lines += ["Before you trust them:", "", *(f"- {note}" for note in results.notes), ""]
    if chaos := figures.chaos(results):
        lines += ["## What was done to the servers", "", *table(figures.CHAOS_HEAD, chaos)]
    rows = [row for row in figures.verification(results) if row.value != "0" or row.name == "lost"]
    lines += ["## Verification", "", *table(("", "count", ""), [(row.name, _strong(row), row.note) for row in rows])]
    lines += [f"The servers' own books: {results.ledger.verdict}", ""]
    setting = [(row.name, row.value, row.note) for row in figures.setting(results)]
    lines += ["## Machine and parameters", "", *table(("", "", ""), setting)]
    return "\n".join(lines).rstrip() + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table as lines, with an empty one behind it; a bar in a cell does not end it."""
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return [*lines, ""]


def _row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", r"\|").replace("\n", " ") for cell in cells]
    return "".join(["|", *(f" {cell} |" if cell else " |" for cell in escaped)])


def _strong(row: figures.Row) -> str:
    return f"**{row.value}**" if row.is_bad else row.value
