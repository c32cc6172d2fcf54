"""PromQL as the panels need it: a panel without data means trouble, so what is quiet in good health reads 0, or blank.

A series with labels is there from its first event on, and a node without drops has no series of drops. Where nothing
is found, the expressions here fall back on a witness: a family that each target has whenever it can be scraped. So
nothing happened is 0, and nobody was scraped is "No data", which a plain `or vector(0)` would turn into 0, too.

What can't be 0 where nothing happened, such as a duration, falls back on NaN, which is drawn as nothing at all.
"""

from typing import Final, NamedTuple

NODE: Final = "instance"
NAMESPACE: Final = "namespace"
NOTHING: Final = "(none)"
"""What stands in legends for a label without a value: no namespace, or no event of any kind."""


class Scope(NamedTuple):
    """Which series a dashboard looks at."""

    targets: str
    """Matchers of the scraped targets."""
    witness: str
    details: str = ""
    """Matchers within them, which the witness does not know."""

    def of(self, name: str, *matchers: str) -> str:
        """Return the selector of *name*."""
        return f"{name}{{{','.join(filter(None, (self.targets, self.details, *matchers)))}}}"

    def present(self, *by: str) -> str:
        """Return what has a value while a target can be scraped."""
        return summed(f"{self.witness}{{{self.targets}}}", *by)


NODES: Final = Scope('job="gateway",instance=~"$node"', "gateway_build_info")
BOOKS: Final = NODES._replace(details='namespace=~"$channel_namespace"')
LOAD: Final = Scope('job="loadtest"', "loadtest_connections_wanted")
LOADED: Final = Scope('job="gateway"', "gateway_build_info")
"""All nodes, beside a load test."""


def summed(expression: str, *by: str) -> str:
    """Return the sum of *expression*, by labels; a namespace without a name gets one to be read."""
    if not by:
        return f"sum({expression})"
    together = f"sum by ({', '.join(by)}) ({expression})"
    return f'label_replace({together}, "{NAMESPACE}", "{NOTHING}", "{NAMESPACE}", "")' if NAMESPACE in by else together


def rate(scope: Scope, name: str, *matchers: str) -> str:
    """Return how fast each series of a counter rises, a second."""
    return f"rate({scope.of(name, *matchers)}[$__rate_interval])"


def rates(scope: Scope, name: str, *by: str, where: str = "") -> str:
    """Return how fast a counter rises, by labels; 0 where it has not been used yet."""
    return or_zero(scope, summed(rate(scope, name, where), *by), *by)


def levels(scope: Scope, name: str, *by: str, where: str = "") -> str:
    """Return the sum of a gauge, by labels; 0 where it has no samples yet."""
    return or_zero(scope, summed(scope.of(name, where), *by), *by)


def quantile(scope: Scope, fraction: float, name: str, *by: str, where: str = "") -> str:
    """Return a quantile of what a histogram has counted lately; blank where that is nothing."""
    buckets = f"sum by ({', '.join(('le', *by))}) ({rate(scope, f'{name}_bucket', where)})"
    found = f"histogram_quantile({fraction:g}, {buckets})"
    if NAMESPACE in by:
        found = f'label_replace({found}, "{NAMESPACE}", "{NOTHING}", "{NAMESPACE}", "")'
    return or_blank(scope, found, *by)


def mean(scope: Scope, name: str, *by: str) -> str:
    """Return the mean of what a histogram has counted lately; blank where that is nothing."""
    total, count = (summed(rate(scope, f"{name}_{part}"), *by) for part in ("sum", "count"))
    return or_blank(scope, f"{total} / {count}", *by)


def ratio(scope: Scope, over: str, under: str) -> str:
    """Return *over* for each of *under*; blank while there is nothing of the latter."""
    return or_blank(scope, f"{over} / (({under}) > 0)")


def imbalance(scope: Scope, *by: str) -> str:
    """Return how many deliveries are due and in no column of the books."""
    columns = ("deliveries_total", "deliveries_filtered_total", "deliveries_dropped_total", "deliveries_queued")
    return " - ".join(levels(scope, f"gateway_{name}", *by) for name in ("deliveries_due_total", *columns))


def heat(scope: Scope, name: str) -> str:
    """Return how fast each bucket of a histogram fills."""
    return or_zero(scope, summed(rate(scope, f"{name}_bucket"), "le"), "le", word="+Inf")


def or_zero(scope: Scope, expression: str, *by: str, word: str = NOTHING) -> str:
    """Return *expression*, or 0 where it finds nothing although there are targets."""
    return _or(scope, expression, "0", *by, word=word)


def or_blank(scope: Scope, expression: str, *by: str) -> str:
    """Return *expression*, or what is drawn as nothing where it finds nothing although there are targets."""
    return _or(scope, expression, "NaN", *by, word=NOTHING)


def _or(scope: Scope, expression: str, value: str, *by: str, word: str) -> str:
    if not by or by == (NODE,):
        return f"({expression} or {value} * {scope.present(*by)})"
    # Of several labels the first is enough to be read.
    return f'({expression} or on() label_replace({value} * {scope.present()}, "{by[0]}", "{word}", "", ""))'
