"""What is wrong is one line of the pod that has it, which never gets ready; those who serve go on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.kubernetes.cluster import Cluster
from tests.support.kubernetes.installation import Installation, installed, is_ready, last_words, name_of, restarts
from tests.support.kubernetes.report import Report
from tests.support.loads import sets
from tests.support.waiting import eventually

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]

_PEOPLE = sets(clients=100, rate=50, room_size=10, namespace="lobby", plateau_s=900, ramp_up_s=2)


@pytest.fixture(scope="module")
def gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(cluster, "bad-input", tmp_path_factory.mktemp("manifests"), replicas=2) as made:
        yield made


class Mistake(NamedTuple):
    """Something that people get wrong, and the line that tells them."""

    name: str
    file: str
    old: str
    new: str
    line: str
    ends: bool = True
    """Whether the node gives up; else it waits, unready."""


MISTAKES = (
    Mistake(
        "a missing Secret",
        "../../base/deployment.yaml",
        "secretName: gateway,",
        "secretName: gatewya,",
        "GATEWAY_REDIS__PASSWORD_FILE: /run/secrets/gateway/redis_password: No such file or directory",
    ),
    Mistake(
        "a wrong key in the ConfigMap",
        "gateway.toml",
        "force_recovery",
        "force_recovrey",
        "channel.namespaces.0.force_recovrey: ",
    ),
    Mistake("an unreachable Redis", "gateway.toml", "redis:6379", "redis:6380", "redis redis:6380: ", ends=False),
    Mistake(
        "a user whom Redis does not know",
        "gateway.toml",
        'address = "redis:6379"',
        'address = "redis:6379"\nuser = "nobody"',
        "redis.password: ",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_bad_rollout_and_the_way_back_cut_nobody(
    gateway: Installation, mistake: Mistake, results: Path, report: Report
) -> None:
    before = {name_of(pod): restarts(pod) for pod in gateway.pods()}
    load = gateway.start_load(results, "chat", *_PEOPLE, "--assert", "reconnects=0", "--assert", "errors=0")
    try:
        load.reaches("plateau")
        gateway.change(mistake.file, mistake.old, mistake.new)
        gateway.apply()
        eventually(lambda: bool(new_pods(gateway, before)), gateway.described)
        [bad] = new_pods(gateway, before)
        line = told(gateway, bad, mistake)
        eventually(lambda: mistake.line in line(), lambda: f"{mistake.line!r} in {line()!r}\n{gateway.described()}")
        assert "Traceback" not in gateway.kubectl("logs", bad)
        found = {name_of(pod): pod for pod in gateway.pods()}
        assert not is_ready(found[bad])
        assert set(before) == set(gateway.ready()), "nodes went before another was there"
        gateway.change(mistake.file, mistake.new, mistake.old)
        gateway.kubectl("rollout", "undo", "deployment/gateway")
        gateway.until_rolled_out()
        seen = load.finish()
    finally:
        load.stop()
    assert {name_of(pod): restarts(pod) for pod in gateway.pods()} == before
    assert seen.verification.lost == 0
    what = "ends, and says why in its last line" if mistake.ends else "waits unready, and says why"
    report.add_load(f"{mistake.name}, rolled out and back under 100 clients", seen, f"the new pod {what}")


def new_pods(gateway: Installation, before: dict[str, int]) -> list[str]:
    return [name_of(pod) for pod in gateway.pods() if name_of(pod) not in before]


def told(gateway: Installation, bad: str, mistake: Mistake) -> Callable[[], str]:
    """Return what asks for the place where the line has to be."""

    def message() -> str:
        return next(last_words(pod) for pod in gateway.pods() if name_of(pod) == bad)

    def log() -> str:
        done = gateway.cluster.run("--namespace", gateway.namespace, "logs", bad)
        return done.stdout

    return message if mistake.ends else log
