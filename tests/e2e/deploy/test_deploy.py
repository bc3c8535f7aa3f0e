"""What deploy/ says is valid Kubernetes and names flags, ports and members that exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
BASE = DEPLOY / "kustomize/base"


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def manifests() -> list[dict[str, Any]]:
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    return [d for name in names for d in documents(BASE / name)]


def only(kind: str, name: str) -> dict[str, Any]:
    found = [m for m in manifests() if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind}/{name}: {len(found)} manifests"
    return found[0]


def containers() -> list[dict[str, Any]]:
    return [c for m in manifests() if m["kind"] in ("StatefulSet", "Deployment")
            for c in m["spec"]["template"]["spec"]["containers"]]


@pytest.mark.parametrize("manifest", manifests(),
                         ids=lambda m: f"{m['kind']}-{m['metadata']['name']}")
def test_manifest_matches_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_schema_check_can_fail() -> None:
    broken = only("Deployment", "reprise-router")
    broken["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_every_file_of_the_base_is_listed() -> None:
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert listed == {p.name for p in BASE.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize("container", containers(), ids=lambda c: c["name"])
def test_flags_exist(container: dict[str, Any]) -> None:
    program = Path(os.environ["REPRISE_BIN"]) / container["command"][0]
    help_text = subprocess.run(
        [program, "--help"], check=True, capture_output=True, text=True).stdout
    for argument in container["args"]:
        flag = argument.split("=")[0]
        assert re.search(re.escape(flag) + r"\b", help_text), f"{program.name} has no {flag}"


def test_members_name_every_replica_at_the_port_it_serves() -> None:
    shards = only("StatefulSet", "reprise-shard")
    members = yaml.safe_load(only("ConfigMap", "reprise-members")["data"]["members.yaml"])
    service = shards["spec"]["serviceName"]
    port = only("Service", service)["spec"]["ports"][0]["port"]
    expected = [{"id": f"reprise-shard-{i}", "address": f"reprise-shard-{i}.{service}:{port}"}
                for i in range(shards["spec"]["replicas"])]
    assert members["shards"] == expected


def test_pods_ask_for_no_special_rights() -> None:
    for manifest in manifests():
        pod = manifest.get("spec", {}).get("template", {}).get("spec")
        if pod is None:
            continue
        assert not any(pod.get(k) for k in ("hostIPC", "hostNetwork", "hostPID"))
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert not security.get("privileged")


def test_a_shard_fits_its_memory_limit() -> None:
    shard = next(c for c in containers() if c["name"] == "shard")
    pool = next(int(a.removeprefix("--dram=").removesuffix("GiB")) for a in shard["args"]
                if a.startswith("--dram="))
    limit = int(shard["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert pool + 1 <= limit


def test_probes_ask_for_the_name_that_health_knows() -> None:
    asked = [c[probe]["grpc"].get("service", "") for c in containers()
             for probe in ("readinessProbe", "livenessProbe")]
    assert asked and set(asked) == {""}, "gRPC answers NOT_FOUND for others: a failed probe"
