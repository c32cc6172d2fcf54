"""The manifests, as far as can be told without a cluster: they build, fit their schemas, and their numbers agree."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import SchemaNotFoundError

from deploy.kubernetes.__main__ import LEFT_OUT, MANIFEST, main, manifest
from gateway.config import Config, load
from tests.support.go_programs import UnavailableError
from tests.support.kubernetes.programs import kustomize

_ROOT: Final = Path(__file__).parents[2]
_FOLDER: Final = _ROOT / "deploy" / "kubernetes"
# The oldest that the README promises, the one that `make test-kubernetes` runs, and the newest that has schemas here.
_VERSIONS: Final = ("1.31", "1.34", "1.37")
OVERLAYS: Final = ("development", "production")
COMPONENTS: Final = tuple(sorted(path.name for path in (_FOLDER / "components").iterdir()))
# Kinds that others than Kubernetes define; `make test-kubernetes` shows them to a server that knows them.
_FOREIGN: Final = {"HTTPRoute", "PodMonitor", "PrometheusRule"}
_METRICS: Final = (_ROOT / "deploy" / "reference" / "metrics.md").read_text(encoding="utf-8")
_SPARE_S: Final = 5

Manifest = dict[str, Any]


def build(folder: Path) -> list[Manifest]:
    try:
        command = kustomize()
    except UnavailableError as reason:
        pytest.skip(str(reason))
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return list(yaml.safe_load_all(done.stdout))


def built_with(folder: Path, overlay: str, *components: str) -> list[Manifest]:
    """Return an overlay with more components than it names itself."""
    shutil.copytree(_FOLDER, folder / "kubernetes")
    path = folder / "kubernetes" / "overlays" / overlay / "kustomization.yaml"
    text = yaml.safe_load(path.read_text(encoding="utf-8"))
    named = [f"../../components/{name}" for name in components]
    text["components"] += [name for name in named if name not in text["components"]]
    path.write_text(yaml.safe_dump(text), encoding="utf-8")
    return build(path.parent)


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Manifest]]:
    return request.param, build(_FOLDER / "overlays" / request.param)


def one(manifests: list[Manifest], kind: str, name: str = "gateway") -> Manifest:
    [found] = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    kinds = ("Deployment", "StatefulSet")
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in manifests if each["kind"] in kinds}


def config_of(manifests: list[Manifest], folder: Path) -> Config:
    [found] = [each for each in manifests if each["kind"] == "ConfigMap" and "gateway.toml" in each["data"]]
    path = folder / "gateway.toml"
    path.write_text(found["data"]["gateway.toml"], encoding="utf-8")
    return load(path, environment={})


def valid(manifests: list[Manifest], version: str) -> set[str]:
    """Return the kinds that have no schema; all others must fit theirs."""
    foreign = set()
    for each in manifests:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except SchemaNotFoundError:
            foreign.add(each["kind"])
    return foreign


@pytest.mark.parametrize("version", _VERSIONS)
def test_an_overlay_fits_the_schemas(overlay: tuple[str, list[Manifest]], version: str) -> None:
    assert valid(overlay[1], version) == set()


@pytest.mark.parametrize("version", _VERSIONS)
def test_all_components_together_fit_the_schemas(tmp_path: Path, version: str) -> None:
    assert valid(built_with(tmp_path, "production", *COMPONENTS), version) == _FOREIGN


def test_each_component_stands_alone_or_says_what_it_stands_behind(tmp_path: Path) -> None:
    for name, overlay in itertools.product(COMPONENTS, OVERLAYS):
        behind = ["autoscaling"] if name == "autoscaling-connections" else []
        assert built_with(tmp_path / name / overlay, overlay, *behind, name)


def test_a_schema_is_no_rubber_stamp(overlay: tuple[str, list[Manifest]]) -> None:
    deployment = one(overlay[1], "Deployment")
    deployment = deployment | {"spec": deployment["spec"] | {"minReadySecond": 1}}
    with pytest.raises(kubernetes_validate.ValidationError, match="minReadySecond"):
        kubernetes_validate.validate(deployment, _VERSIONS[0], strict=True)


def test_a_node_has_the_time_that_its_configuration_takes_to_end(
    overlay: tuple[str, list[Manifest]], tmp_path: Path
) -> None:
    name, manifests = overlay
    deployment, config = one(manifests, "Deployment"), config_of(manifests, tmp_path)
    pod = deployment["spec"]["template"]["spec"]
    before_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] == before_s + config.shutdown.timeout_s + _SPARE_S
    if name == "production":
        assert deployment["spec"]["minReadySeconds"] >= before_s + config.shutdown.grace_s + config.drain.window_s


def test_a_rollout_takes_no_node_before_another_is_there(overlay: tuple[str, list[Manifest]]) -> None:
    spec = one(overlay[1], "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert one(overlay[1], "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    autoscaled = [each for each in overlay[1] if each["kind"] == "HorizontalPodAutoscaler"]
    # Two that say how many there are would undo each other's work.
    assert bool(autoscaled) != ("replicas" in spec)


def test_memory_and_connections_fit_into_the_limits(overlay: tuple[str, list[Manifest]], tmp_path: Path) -> None:
    name, manifests = overlay
    config = config_of(manifests, tmp_path)
    resources = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert (resources["requests"]["memory"], resources["limits"]) == ("256Mi", {"memory": "1Gi"})
    if name == "production":
        assert 50e6 + 9e3 * config.client.connection_limit < 256 * 2**20
        assert 0.7 * 2**30 < config.health.memory_watermark < 0.9 * 2**30


@pytest.mark.parametrize("folder", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_a_node_takes_its_configuration(folder: str, tmp_path: Path) -> None:
    manifests = build(_FOLDER / folder)
    config = config_of(manifests, tmp_path)
    assert config.broker.type == "redis"
    assert config.http_server.internal_address == "0.0.0.0"  # noqa: S104 - probes come from outside the pod
    assert not config.client.insecure
    assert not config.client.allow_anonymous_connect_without_token


def test_a_pod_may_do_no_more_than_it_must(overlay: tuple[str, list[Manifest]]) -> None:
    for name, pod in pods(overlay[1]).items():
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["enableServiceLinks"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", name
            assert container["resources"]["limits"].keys() == {"memory"}, name
    levels = one(overlay[1], "Namespace")["metadata"]["labels"]
    assert set(levels.values()) == {"restricted"}
    assert len(levels) == 3


def test_no_secret_is_in_a_manifest(overlay: tuple[str, list[Manifest]]) -> None:
    assert not [each for each in overlay[1] if each["kind"] == "Secret"]
    for name, pod in pods(overlay[1]).items():
        for container in pod["containers"]:
            for variable in container.get("env", []):
                is_secret = re.search("KEY|PASSWORD", variable["name"])
                assert not is_secret or variable["name"].endswith("_FILE"), (name, variable)


def test_whoever_is_selected_is_there(overlay: tuple[str, list[Manifest]]) -> None:
    """Services, policies and budgets find pods by labels: each finds some."""
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in overlay[1]
        if each["kind"] in ("Deployment", "StatefulSet")
    ]
    for each in overlay[1]:
        spec = each.get("spec", {})
        selected = {
            "Service": lambda spec=spec: spec["selector"],
            "NetworkPolicy": lambda spec=spec: spec["podSelector"]["matchLabels"],
            "PodDisruptionBudget": lambda spec=spec: spec["selector"]["matchLabels"],
        }.get(each["kind"])
        if selected is not None:
            wanted = selected().items()
            assert any(wanted <= found.items() for found in labels), each["metadata"]["name"]


def test_a_changed_configuration_is_a_rollout(tmp_path: Path) -> None:
    """The pods name their ConfigMap with a hash of its content."""

    def named(folder: Path) -> str:
        [volume] = [each for each in pods(build(folder))["gateway"]["volumes"] if "configMap" in each]
        return str(volume["configMap"]["name"])

    before = named(_FOLDER / "overlays" / "production")
    shutil.copytree(_FOLDER, tmp_path / "kubernetes")
    folder = tmp_path / "kubernetes" / "overlays" / "production"
    with (folder / "gateway.toml").open("a") as file:
        file.write("join_leave = true\n")
    assert re.fullmatch(r"gateway-[a-z0-9]{10}", before)
    assert named(folder) != before


def test_autoscalers_go_by_metrics_that_there_are(tmp_path: Path) -> None:
    manifests = built_with(tmp_path, "production", "autoscaling", "autoscaling-connections")
    scaler = one(manifests, "HorizontalPodAutoscaler")["spec"]
    cpu, connections = scaler["metrics"]
    assert cpu["resource"]["name"] == "cpu"
    name = connections["pods"]["metric"]["name"]
    assert f"| `{name}` |" in _METRICS
    adapter = yaml.safe_load((_FOLDER / "components" / "autoscaling-connections" / "adapter.yaml").read_text())
    assert [rule["seriesQuery"].partition("{")[0] for rule in adapter["rules"]] == [name]
    # A full node has room for those of one that is lost.
    share = int(connections["pods"]["target"]["averageValue"])
    assert config_of(manifests, tmp_path).client.connection_limit >= share * 3 / 2


def test_the_rules_for_prometheus_operator_are_current(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    stale = tmp_path / "rule.yaml"
    assert main(["--check", "--file", str(stale)]) == 1
    assert "make manifests" in capsys.readouterr().err
    assert main(["--file", str(stale)]) == 0
    assert stale.read_text() == MANIFEST.read_text()


def test_prometheus_operator_gets_all_rules_but_one() -> None:
    def names(groups: list[Manifest]) -> list[str]:
        return [rule.get("alert", rule.get("record")) for group in groups for rule in group["rules"]]

    files = [_ROOT / "deploy" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
    wanted = [name for file in files for name in names(yaml.safe_load(file.read_text())["groups"])]
    groups = yaml.safe_load(manifest())["spec"]["groups"]
    # Files may have groups of one name, objects may not.
    assert len({group["name"] for group in groups}) == len(groups)
    found = names(groups)
    assert LEFT_OUT in wanted
    assert found == [name for name in wanted if name != LEFT_OUT]
