"""All checks, and what they found: a line each, or as JSON."""

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from gateway.config import Config, ConfigError
from gateway.doctor.certificate import check_certificate
from gateway.doctor.configuration import check_configuration
from gateway.doctor.finding import Finding, Verdict, error, ok
from gateway.doctor.machine import check_machine, check_ports, read_machine
from gateway.doctor.proxies import check_proxies, examine_proxies
from gateway.doctor.redis import examine_redis
from gateway.tables import BrokerType

_WIDTHS: Final = (7, 13)
_COLOURS: Final = {Verdict.OK: 32, Verdict.WARNING: 33, Verdict.ERROR: 31}


def examine(read: Callable[[], Config]) -> list[Finding]:
    """Make all checks on the configuration that *read* returns; those of a bad one end with its faults."""
    try:
        config = read()
    except ConfigError as fault:
        return [error("configuration", line) for line in fault.faults]
    findings = [ok("configuration", "every key is known and has a value that will do")]
    findings += check_configuration(config)
    findings += check_proxies(config)
    findings += check_certificate(config.http_server.tls, now=datetime.now(UTC))
    findings += check_machine(config, read_machine())
    findings += check_ports(config)
    if config.broker.type is BrokerType.REDIS:
        findings += asyncio.run(examine_redis(config))
    findings += asyncio.run(examine_proxies(config))
    return findings


def as_text(findings: Iterable[Finding], *, is_coloured: bool = False) -> str:
    """Write findings as lines: verdict, subject, text; what to do is in a line of its own, below."""
    lines = []
    counts = dict.fromkeys(Verdict, 0)
    for verdict, subject, text, advice in findings:
        counts[verdict] += 1
        word = f"{verdict.word:<{_WIDTHS[0]}}"
        word = f"\x1b[{_COLOURS[verdict]}m{word}\x1b[0m" if is_coloured else word
        lines.append(f"{word}  {subject:<{_WIDTHS[1]}}  {text}")
        if advice:
            lines.append(f"{'':<{sum(_WIDTHS) + 4}}-> {advice}")
    lines.append(", ".join(f"{each.word}: {counts[each]}" for each in reversed(Verdict)))
    return "\n".join(lines)


def as_json(findings: Iterable[Finding], worst: Verdict) -> str:
    """Write findings, and the *worst* verdict of them, for machines."""
    listed = [each._asdict() | {"verdict": each.verdict.word} for each in findings]
    return json.dumps({"verdict": worst.word, "findings": listed}, indent=2)
