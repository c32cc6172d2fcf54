"""How findings are written."""

from gateway.config import ConfigError
from gateway.doctor.examination import as_text, examine
from gateway.doctor.finding import Verdict, error, ok, warning


def test_each_finding_is_a_line_and_what_to_do_stands_below_it() -> None:
    findings = [ok("ports", "public port 8000 is free"), warning("tls", "expires", "renew it"), error("redis", "gone")]
    assert as_text(findings).splitlines() == [
        "ok       ports          public port 8000 is free",
        "warning  tls            expires",
        "                        -> renew it",
        "error    redis          gone",
        "error: 1, warning: 1, ok: 1",
    ]
    assert as_text(findings, is_coloured=True).startswith("\x1b[32mok     \x1b[0m  ports")


def test_a_bad_configuration_is_an_error_for_each_fault_and_the_end_of_it() -> None:
    def read() -> None:
        raise ConfigError(["one", "two"])

    findings = examine(read)  # type: ignore[arg-type]  # it never returns
    assert findings == [error("configuration", "one"), error("configuration", "two")]
    assert max(each.verdict for each in findings) is Verdict.ERROR
