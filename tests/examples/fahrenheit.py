"""A processor of one's own: `{"celsius": 21.5}` becomes `{"celsius":21.5,"fahrenheit":70.7}`.

A package that offers it has this in its pyproject.toml:

    [project.entry-points."gateway.processors"]
    fahrenheit = "fahrenheit:Fahrenheit"

and a node's configuration names it, with its options:

    [[channel.namespaces]]
    name = "weather"
    processors = ["fahrenheit", "statistics"]
    statistics_field = "fahrenheit"
    processor_options.fahrenheit.digits = 1
"""

from typing import Any

from gateway.messaging.processors import NotProcessableError


class Fahrenheit:
    """Adds the temperature in Fahrenheit; *digits* behind the point."""

    def __init__(self, *, digits: int = 2) -> None:
        self._digits = digits

    def __call__(self, value: dict[str, Any], *, unix_s: float) -> dict[str, Any]:
        """Return *value* with `fahrenheit` in it."""
        del unix_s
        celsius = value.get("celsius")
        if not isinstance(celsius, int | float):
            raise NotProcessableError("no temperature")
        return value | {"fahrenheit": round(celsius * 9 / 5 + 32, self._digits)}
