"""What the server API's schema promises, held against a live node by schemathesis: right calls and wrong ones."""

import asyncio
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.nodes import running_node

KEY: Final = "a key of the tests"
TABLE: Final[dict[str, Any]] = {
    "http_api": {"key": KEY},
    "handlers": {"rpc_methods": ["echo"]},
    "channel": {
        "without_namespace": {"presence": True, "history_size": 10, "history_ttl": 60},
        "namespaces": [{"name": "chat"}],
    },
}
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# It would end the node; what it takes is a name.
LEFT_OUT: Final = {"drain"}


def hold(url: str, *, examples: int) -> set[str]:
    """Send *examples* right calls and as many wrong ones of each method; return the methods."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    seen = set()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        name = operation.path.removeprefix("/api/")
        if name in LEFT_OUT:
            continue
        seen.add(name)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                case.call_and_validate(headers={"X-API-Key": KEY}, checks=CHECKS, timeout=20)

            send()
    return seen


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("examples", [6, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_every_answer_is_one_that_the_schema_describes(examples: int) -> None:
    async with running_node(TABLE, is_development=False) as node:
        seen = await asyncio.to_thread(hold, node.internal_url, examples=examples)
        assert len(seen) == 15
