"""Dashboard, alerts and monitors ask for what is served, of pods that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
REFERENCE = ROOT / "service/telemetry/README.md"
DASHBOARD = ROOT / "deploy/dashboards/reprise.json"
ALERTS = ROOT / "deploy/alerts/reprise.yaml"
BASE = ROOT / "deploy/kustomize/base"
MONITOR = ROOT / "deploy/kustomize/components/pod-monitor"
# What Prometheus adds to every series that it scrapes from a pod.
TARGET_LABELS = {"namespace", "pod", "instance", "job"}


def reference() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of every metric."""
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \|([^|]*)\| ",
                      REFERENCE.read_text(), flags=re.MULTILINE)
    found: dict[str, tuple[str, set[str]]] = {}
    for name, kind, labels in rows:
        assert name not in found, name
        found[name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    assert len(found) > 60
    return found


def panels() -> list[dict[str, Any]]:
    return [p for p in json.loads(DASHBOARD.read_text())["panels"] if p["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']}", target["expr"]
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    asked = REFERENCE.read_text().split("## What one asks")[1]
    for line in asked.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        if line.startswith("| ") and len(cells) == 4:
            for query in re.findall(r"`([^`]+)`", cells[2]):
                yield f"README: {cells[1].strip()}", query.replace("\\|", "|")


SERIES = re.compile(r"\b((?:reprise|process)_\w+)(\{[^}]*\})?")


def family(name: str, known: dict[str, Any]) -> str | None:
    if name in known:
        return name
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base in known and known[base][0] == "histogram" else None


def complaints(text: str, known: dict[str, tuple[str, set[str]]]) -> list[str]:
    """What an expression asks for that nobody serves."""
    found = []
    for name, selector in SERIES.findall(text):
        of = family(name, known)
        if of is None:
            found.append(f"no metric {name}")
            continue
        if known[of][0] == "histogram" and of == name:
            found.append(f"{name} is a histogram: ask for its buckets, sum or count")
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""):
            if label not in known[of][1] | TARGET_LABELS:
                found.append(f"{name} has no label {label}")
    labels = {label for _, more in known.values() for label in more} | TARGET_LABELS | {"le"}
    for grouping in re.findall(r"\b(?:by|without|on)\s*\(([^)]*)\)", text):
        found += [f"no label {x.strip()}" for x in grouping.split(",") if x.strip() not in labels]
    for counter in re.findall(r"\b(?:rate|increase)\(\s*(\w+)", text):
        of = family(counter, known)
        if of is not None and known[of][0] == "gauge":
            found.append(f"{counter} is a gauge and has no rate")
    if text.count("(") != text.count(")") or text.count("{") != text.count("}"):
        found.append("brackets do not match")
    return found


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_every_expression_asks_for_what_is_served(where: str, expression: str) -> None:
    assert SERIES.search(expression), where
    assert complaints(expression, reference()) == []


@pytest.mark.parametrize(("expression", "complaint"), [
    ("rate(reprise_hits_total[5m])", "no metric reprise_hits_total"),
    ('reprise_tier_lost{lane="view"}', "reprise_tier_lost has no label lane"),
    ("sum by (tenant) (reprise_blocks)", "no label tenant"),
    ("rate(reprise_blocks[5m])", "reprise_blocks is a gauge and has no rate"),
    ("reprise_rpc_server_duration_seconds", "is a histogram"),
    ("reprise_blocks_count", "no metric reprise_blocks_count"),
    ("sum(reprise_blocks", "brackets do not match"),
])
def test_the_check_of_expressions_can_fail(expression: str, complaint: str) -> None:
    assert any(complaint in one for one in complaints(expression, reference()))


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 5
    for rule in rules():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]
        assert len(rule["annotations"]["runbook"].split()) > 10, rule["alert"]
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in rule["expr"] or label in TARGET_LABELS or any(
                label in labels for name, (_, labels) in reference().items()
                if name in rule["expr"]), f"{rule['alert']}: {label}"


def test_the_dashboard_asks_the_data_source_that_a_person_chose() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    variables = {v["name"]: v for v in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}", panel["title"]


def pods() -> list[dict[str, Any]]:
    return [d["spec"]["template"] for name in ("shard.yaml", "router.yaml")
            for d in yaml.safe_load_all((BASE / name).read_text())
            if d["kind"] in ("StatefulSet", "Deployment")]


def matches(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    return selector["matchLabels"].items() <= pod["metadata"]["labels"].items()


def test_prometheus_finds_every_pod_by_annotation_and_by_monitor() -> None:
    monitor = yaml.safe_load((MONITOR / "pod-monitor.yaml").read_text())
    component = yaml.safe_load((MONITOR / "kustomization.yaml").read_text())
    assert component["kind"] == "Component" and component["resources"] == ["pod-monitor.yaml"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for pod in pods():
        ports = {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]}
        assert matches(monitor["spec"]["selector"], pod)
        assert endpoint["port"] in ports and endpoint["path"] == "/metrics"
        annotations = pod["metadata"]["annotations"]
        assert annotations["prometheus.io/scrape"] == "true"
        assert annotations["prometheus.io/port"] == str(ports["status"])
        assert annotations["prometheus.io/path"] == "/metrics"


def test_the_network_policy_guards_every_pod_and_lets_only_prometheus_at_the_metrics() -> None:
    policy = yaml.safe_load((BASE / "network-policy.yaml").read_text())["spec"]
    let_in = {port["port"]: rule["from"] for rule in policy["ingress"] for port in rule["ports"]}
    ports: dict[str, int] = {}
    for pod in pods():
        assert matches(policy["podSelector"], pod)
        ports |= {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]}
    assert ports.keys() == {"grpc", "blocks", "status"} and let_in.keys() == set(ports.values())
    assert let_in[ports["blocks"]] == let_in[ports["grpc"]]
    (prometheus,) = let_in[ports["status"]]
    assert prometheus["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}


def test_shards_listen_for_blocks_where_the_policy_lets_them_in() -> None:
    (shard,) = [pod for pod in pods() if "reprise-shard" in pod["spec"]["containers"][0]["command"]]
    container = shard["spec"]["containers"][0]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert f"--tcp-port={ports['blocks']}" in container["args"]
