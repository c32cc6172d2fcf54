from gateway.broker.redis.counts import Journal
from tests.support.redis_engines import Reports


def test_what_may_come_often_is_reported_once_a_minute_for_each_subject_and_event() -> None:
    now_s = 0.0
    reports = Reports()
    journal = Journal(reports, monotonic=lambda: now_s)

    def report(*subjects: str, event: str = "refused") -> list[str]:
        reports.lines.clear()
        for subject in subjects:
            journal.report_seldom(event, subject, error="x")
        assert all(fields["error"] == "x" for fields in reports.of(event))
        return [fields["subject"] for fields in reports.of(event)]

    assert report("a", "b", "a") == ["a", "b"]
    assert report("a", event="undecodable") == ["a"]
    now_s = 59.9
    assert report("a", "c") == ["c"]
    now_s = 60.0
    assert report("a", "b", "c") == ["a", "b"]


def test_however_many_subjects_there_are_it_speaks_of_a_thousand_a_minute() -> None:
    now_s = 0.0
    reports = Reports()
    journal = Journal(reports, monotonic=lambda: now_s)
    for _ in range(2):
        for number in range(3000):
            journal.report_seldom("refused", str(number))
        assert [fields["subject"] for fields in reports.of("refused")] == [str(number) for number in range(1000)]
        reports.lines.clear()
        now_s += 60.0
