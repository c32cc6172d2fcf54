"""Writes the PrometheusRule from deploy/prometheus (`make manifests`), or says whether it is current."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path(__file__).parents[1] / "prometheus"
MANIFEST: Final = Path(__file__).with_name("components") / "monitoring" / "prometheus-rule.yaml"
LEFT_OUT: Final = "GatewayFewerNodes"
"""Rollouts and autoscalers have fewer nodes on purpose; kube-state-metrics tells of a Deployment that lacks some."""
_HEAD: Final = "# Made of deploy/prometheus/*.yml by `make manifests`.\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the manifest; with `--check` write nothing, and return 1 if it is not current."""
    parser = argparse.ArgumentParser("python -m deploy.kubernetes", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and say whether the file is current")
    parser.add_argument("--file", type=Path, default=MANIFEST, help="where it is (default: %(default)s)")
    options = parser.parse_args(arguments)
    wanted = manifest()
    if not options.check:
        options.file.write_text(wanted, encoding="utf-8")
        return 0
    if options.file.exists() and options.file.read_text(encoding="utf-8") == wanted:
        return 0
    sys.stderr.write(f"{options.file} is not what deploy/prometheus says: run `make manifests`.\n")
    return 1


def manifest() -> str:
    """Return the text of the PrometheusRule."""
    groups = [_kept(group) for name in ("recording.yml", "alerts.yml") for group in _groups(name)]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "gateway"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, allow_unicode=True, width=120)


def _groups(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    return groups


def _kept(group: dict[str, Any]) -> dict[str, Any]:
    return group | {"rules": [rule for rule in group["rules"] if rule.get("alert") != LEFT_OUT]}


if __name__ == "__main__":
    sys.exit(main())
