import re

from loadtest.report.page import render
from loadtest.results import Latency, Ledger, Phases, Verdict, Verification
from tests.support.load_runs import RUN, changed


def test_the_page_loads_nothing_and_markup_from_a_run_stays_text() -> None:
    page = render(changed(RUN, run=changed(RUN.run, description="<script>alert(1)</script>")))
    assert re.findall(r"<(?:script|iframe|link(?! rel=\"icon\" href=\"data:,\"))", page) == []
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?\s*(?:https?:)?//", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "room|&lt;b&gt;" in page


def test_each_chart_is_there_for_wide_and_for_narrow_windows_with_the_chaos_in_it() -> None:
    page = render(RUN)
    titles = re.findall(r"<figcaption><h3>(.*?)</h3>", page)
    assert titles == [
        "Latency over time",
        "Latency by percentile",
        "Deliveries a second",
        "Publications a second",
        "Connections",
        "Connects and reconnects a second",
        "Errors a second",
        "CPU",
        "Memory",
    ]
    assert page.count('role="img"') == 2 * len(titles)
    assert page.count('<g class="mark">') == 2 * (len(titles) - 1)


def test_a_run_that_measured_nothing_has_a_page_too() -> None:
    empty = changed(
        RUN,
        timeline=[],
        phases=Phases(),
        latency=Latency(delivery="", acknowledgement="", model="closed"),
        verification=Verification(publications=0, refused=0, unanswered=0, delivered=0),
        ledger=Ledger(books=[], delivered=0, received=0, verdict="Nothing was read.", is_agreed=None),
        chaos=[],
        verdict=Verdict(is_passed=False, checks=[]),
        is_interrupted=True,
    )
    page = render(empty)
    assert "<figcaption>" not in page
    assert "The run did not pass. It was interrupted" in page
