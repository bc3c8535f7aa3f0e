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


def patched(document: Any, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902), of the two kinds that the overlays use."""
    *parents, last = operation["path"].strip("/").split("/")
    at = document
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    if isinstance(at, list) and operation["op"] == "add":
        at.insert(len(at) if last == "-" else int(last), operation["value"])
        return
    key = int(last) if isinstance(at, list) else last
    if operation["op"] == "replace":
        at[key]  # what is replaced exists
    else:
        assert operation["op"] == "add" and key not in at, operation
    at[key] = operation["value"]


def manifests(overlay: Path | None = None) -> list[dict[str, Any]]:
    names = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    found = [d for name in names for d in documents(BASE / name)]
    if overlay is None:
        return found
    kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    assert (overlay / kustomization["resources"][0]).resolve() == BASE
    for patch in kustomization["patches"]:
        target = patch["target"]
        for document in found:
            if (document["kind"], document["metadata"]["name"]) == (target["kind"],
                                                                    target["name"]):
                for operation in yaml.safe_load(patch["patch"]):
                    patched(document, operation)
    return found


Patches = list[tuple[tuple[str, str], list[dict[str, Any]]]]


def component(name: str) -> tuple[Patches, list[dict[str, Any]]]:
    """What a component does to which manifest, and what it adds."""
    folder = DEPLOY / "kustomize/components" / name
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())
    patches = [((patch["target"]["kind"], patch["target"]["name"]),
                yaml.safe_load((folder / patch["path"]).read_text()))
               for patch in listed.get("patches", [])]
    return patches, [d for name in listed.get("resources", []) for d in documents(folder / name)]


def with_component(*names: str, overlay: Path | None = None) -> list[dict[str, Any]]:
    """The base with components, as an overlay has it that names them."""
    found, added = manifests(overlay), []
    for name in names:
        patches, resources = component(name)
        added += resources
        for target, operations in patches:
            (document,) = [m for m in found if (m["kind"], m["metadata"]["name"]) == target]
            for operation in operations:
                patched(document, operation)
    return found + added


COMPONENTS = {p.parent.name for p in DEPLOY.glob("kustomize/components/*/kustomization.yaml")}
DISKS = {"kept-disk", "local-disk"}  # one in place of the other
OVERLAYS = sorted(p.parent for p in (DEPLOY / "kustomize/overlays").glob("*/kustomization.yaml"))
ALL = [None, *OVERLAYS]


def name_of(overlay: Path | None) -> str:
    return overlay.name if overlay else "base"


def only(kind: str, name: str) -> dict[str, Any]:
    found = [m for m in manifests() if m["kind"] == kind and m["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind}/{name}: {len(found)} manifests"
    return found[0]


def containers(overlay: Path | None = None) -> list[dict[str, Any]]:
    return [c for m in manifests(overlay) if m["kind"] in ("StatefulSet", "Deployment")
            for c in m["spec"]["template"]["spec"]["containers"]]


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_manifests_match_the_schema(overlay: Path | None) -> None:
    for manifest in manifests(overlay):
        kubernetes_validate.validate(manifest, "1.31", strict=True)


def test_schema_check_can_fail() -> None:
    broken = only("Deployment", "reprise-router")
    broken["spec"]["replicas"] = "two"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


def test_every_file_of_the_base_is_listed() -> None:
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert listed == {p.name for p in BASE.glob("*.yaml")} - {"kustomization.yaml"}


@pytest.mark.parametrize(
    "container", [c for overlay in ALL for c in containers(overlay)],
    ids=[f"{name_of(overlay)}-{c['name']}" for overlay in ALL for c in containers(overlay)])
def test_flags_exist(container: dict[str, Any]) -> None:
    program = Path(os.environ["REPRISE_BIN"]) / container["command"][0]
    help_text = subprocess.run(
        [program, "--help"], check=True, capture_output=True, text=True).stdout
    for argument in container["args"]:
        flag = argument.split("=")[0]
        assert re.search(re.escape(flag) + r"\b", help_text), f"{program.name} has no {flag}"


def server_flags(found: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """The arguments of the shards and of the routers."""
    return {m["metadata"]["name"]: dict(a.partition("=")[::2] for a in
                                        m["spec"]["template"]["spec"]["containers"][0]["args"])
            for m in found if m["metadata"]["name"] in ("reprise-shard", "reprise-router")
            and m["kind"] != "Service" and "template" in m["spec"]}


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_the_members_are_the_pods_behind_the_headless_service(overlay: Path | None) -> None:
    shards = only("StatefulSet", "reprise-shard")
    service = only("Service", shards["spec"]["serviceName"])
    labels = shards["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"].items() <= labels.items()
    # What SRV records are asked for: _grpc._tcp.
    (port,) = service["spec"]["ports"]
    assert (port["name"], port.get("protocol", "TCP")) == ("grpc", "TCP")
    flags = server_flags(manifests(overlay))
    assert len(flags) == 2
    for server in flags.values():
        assert server["--members-dns"] == service["metadata"]["name"]
    # Ids and the first labels of the records' hosts are the same names.
    assert flags["reprise-shard"]["--id"] == "$(POD_NAME)"
    assert int(flags["reprise-shard"]["--listen"].rpartition(":")[2]) == port["port"]


def test_with_etcd_every_server_knows_it_and_shards_say_where_they_are() -> None:
    found = with_component("etcd")
    for manifest in found:
        kubernetes_validate.validate(manifest, "1.31", strict=True)
    (etcd,) = [m for m in found if m["kind"] == "StatefulSet"
               and m["metadata"]["name"] == "reprise-etcd"]
    (service,) = [m for m in found if m["kind"] == "Service"
                  and m["metadata"]["name"] == etcd["spec"]["serviceName"]]
    ports = {p["name"]: p["port"] for p in service["spec"]["ports"]}
    for server, flags in server_flags(found).items():
        assert "--members-dns" not in flags
        # Each by its own name: behind a common one there may always be the one that is cut off.
        assert flags["--etcd"].split(",") == [
            f"reprise-etcd-{i}.{service['metadata']['name']}:{ports['client']}"
            for i in range(etcd["spec"]["replicas"])]
        help_text = subprocess.run([Path(os.environ["REPRISE_BIN"]) / server, "--help"],
                                   check=True, capture_output=True, text=True).stdout
        assert "--etcd " in help_text
    shards = only("StatefulSet", "reprise-shard")
    advertised = server_flags(found)["reprise-shard"]["--advertise"]
    assert advertised == f"$(POD_NAME).{shards['spec']['serviceName']}:7070"
    # Each of the three knows all three, at the port that it serves its peers on.
    (container,) = etcd["spec"]["template"]["spec"]["containers"]
    flags = dict(a.partition("=")[::2] for a in container["args"])
    name = service["metadata"]["name"]
    assert flags["--initial-cluster"] == ",".join(
        f"{name}-{i}=http://{name}-{i}.{name}:{ports['peer']}"
        for i in range(etcd["spec"]["replicas"]))


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_a_shard_has_a_gpu_where_it_asks_for_gpu_memory(overlay: Path | None) -> None:
    shard = next(c for c in containers(overlay) if c["name"] == "shard")
    wants = any(a.startswith("--hbm=") for a in shard["args"])
    limits = shard["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == wants
    # Kubernetes gives no other number of devices than the limit.
    assert shard["resources"]["requests"].get("nvidia.com/gpu") == limits.get("nvidia.com/gpu")


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_pods_ask_for_no_special_rights(overlay: Path | None) -> None:
    for manifest in manifests(overlay):
        pod = manifest.get("spec", {}).get("template", {}).get("spec")
        if pod is None:
            continue
        assert not any(pod.get(k) for k in ("hostIPC", "hostNetwork", "hostPID"))
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert not security.get("privileged")


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_a_shard_fits_its_memory_limit(overlay: Path | None) -> None:
    shard = next(c for c in containers(overlay) if c["name"] == "shard")
    pool = next(int(a.removeprefix("--dram=").removesuffix("GiB")) for a in shard["args"]
                if a.startswith("--dram="))
    limit = int(shard["resources"]["limits"]["memory"].removesuffix("Gi"))
    assert pool + 1 <= limit


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_probes_ask_the_status_port_for_paths_that_it_serves(overlay: Path | None) -> None:
    pages = (DEPLOY.parent / "service/telemetry/status_pages.cc").read_text()
    served = set(re.findall(r'request\.path == "(/\w+)"', pages))
    for container in containers(overlay):
        ports = {p["name"]: p["containerPort"] for p in container["ports"]}
        (listen,) = [a for a in container["args"] if a.startswith("--status-listen=")]
        assert int(listen.rpartition(":")[2]) == ports["status"]
        assert "--status-public" in container["args"]  # the kubelet asks at the pod's address
        asked = {probe: container[probe]["httpGet"] for probe in container
                 if probe.endswith("Probe")}
        assert asked["readinessProbe"]["path"] == "/readyz"
        assert asked["livenessProbe"]["path"] == "/livez"
        for ask in asked.values():
            assert ask["path"] in served and ask["port"] == "status"


def test_a_shard_has_time_to_take_its_memory_before_it_is_judged() -> None:
    (shard,) = [c for c in containers() if c["name"] == "shard"]
    probe = shard["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


def test_with_mtls_no_server_speaks_plaintext_and_each_has_its_certificate() -> None:
    found = with_component("mtls")
    certificates = {m["spec"]["secretName"]: m["spec"] for m in found
                    if m["kind"] == "Certificate"}
    issuers = {m["metadata"]["name"] for m in found if m["kind"] == "Issuer"}
    assert {c["issuerRef"]["name"] for c in certificates.values()} <= issuers
    servers = [m for m in found if m["kind"] in ("StatefulSet", "Deployment")]
    assert len(servers) == 2
    for server in servers:
        kubernetes_validate.validate(server, "1.31", strict=True)
        pod = server["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        flags = dict(a.split("=") for a in container["args"] if a.startswith("--tls-"))
        assert "--insecure" not in container["args"]
        assert set(flags) == {"--tls-ca", "--tls-cert", "--tls-key"}
        program = Path(os.environ["REPRISE_BIN"]) / container["command"][0]
        help_text = subprocess.run(
            [program, "--help"], check=True, capture_output=True, text=True).stdout
        assert all(flag in help_text for flag in flags)
        # cert-manager's names for the files of a secret.
        (mount,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "tls"]
        assert set(flags.values()) == {f"{mount}/{f}" for f in ("ca.crt", "tls.crt", "tls.key")}
        (secret,) = [v["secret"]["secretName"] for v in pod["volumes"] if v["name"] == "tls"]
        certificate = certificates[secret]
        assert len([u for u in certificate["uris"] if u.startswith("spiffe://")]) == 1
        assert set(certificate["usages"]) == {"server auth", "client auth"}


def test_with_a_local_disk_a_shard_has_a_folder_with_room_for_what_it_reserves() -> None:
    (shard,) = [m for m in with_component("local-disk") if m["kind"] == "StatefulSet"]
    kubernetes_validate.validate(shard, "1.31", strict=True)
    pod = shard["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(a.split("=") for a in container["args"] if a.startswith("--nvme"))
    assert set(flags) == {"--nvme", "--nvme-dir"}
    help_text = subprocess.run(
        [Path(os.environ["REPRISE_BIN"]) / container["command"][0], "--help"],
        check=True, capture_output=True, text=True).stdout
    assert all(flag in help_text for flag in flags)
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == flags["--nvme-dir"]]
    assert not mount.get("readOnly")
    (volume,) = [v for v in pod["volumes"] if v["name"] == mount["name"]]
    room = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
    assert int(flags["--nvme"].removesuffix("GiB")) < room


def shard_of(found: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """The shards' StatefulSet, and their flags."""
    (shard,) = [m for m in found if (m["kind"], m["metadata"]["name"])
                == ("StatefulSet", "reprise-shard")]
    kubernetes_validate.validate(shard, "1.31", strict=True)
    return shard, server_flags(found)["reprise-shard"]


def test_with_a_kept_disk_a_shard_finds_its_own_disk_again_and_has_room_there() -> None:
    shard, flags = shard_of(with_component("kept-disk"))
    assert {f for f in flags if f.startswith("--nvme")} == {
        "--nvme", "--nvme-dir", "--nvme-keep", "--nvme-key"}
    # By its name, which a pod that comes back has again: with an emptyDir it would be another disk.
    assert flags["--id"] == "$(POD_NAME)"
    (claim,) = shard["spec"]["volumeClaimTemplates"]
    pod = shard["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == flags["--nvme-dir"]]
    assert mount["name"] == claim["metadata"]["name"] and not mount.get("readOnly")
    assert mount["name"] not in [v["name"] for v in pod["volumes"]]
    room = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert int(flags["--nvme"].removesuffix("GiB")) * 1.1 < room  # journal and file system
    assert "storageClassName" not in claim["spec"]  # the overlay's


def test_the_key_of_a_kept_disk_is_a_secret_that_the_shard_alone_reads() -> None:
    shard, flags = shard_of(with_component("kept-disk"))
    pod = shard["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    folder, _, name = flags["--nvme-key"].rpartition("/")
    (mount,) = [m for m in container["volumeMounts"] if m["mountPath"] == folder]
    assert mount["readOnly"] and folder != flags["--nvme-dir"]
    (secret,) = [v["secret"] for v in pod["volumes"] if v["name"] == mount["name"]]
    assert secret["optional"] is False, "no shard starts without one"
    assert secret["defaultMode"] == 0o400
    # The file is root's. With a group of the pod's own the kubelet gives it to that, 0440.
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    # Where the mode of what is in the volume is left as it is: 0600.
    assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch"
    # How to make it is written down, under the names that are used here.
    text = (DEPLOY / "README.md").read_text()
    assert f"kubectl create secret generic {secret['secretName']} --from-file={name}=" in text


@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_with_a_kept_disk_a_shard_has_time_to_save_its_memory(overlay: Path | None) -> None:
    shard, flags = shard_of(with_component("kept-disk", overlay=overlay))
    memory = sum(int(flags[tier].removesuffix("GiB")) for tier in ("--dram", "--hbm")
                 if tier in flags) * 2**30
    seconds = float(flags["--grace"])
    assert memory / seconds < 0.6e9, "bytes a second, which a slow disk of a node's own takes"
    pod = shard["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= seconds + 30


@pytest.mark.parametrize("disk", sorted(DISKS))
@pytest.mark.parametrize("overlay", ALL, ids=name_of)
def test_all_components_go_together_and_with_every_overlay(
    overlay: Path | None, disk: str
) -> None:
    names = sorted(COMPONENTS - DISKS | {disk})
    replaced = [(target, operation["path"]) for name in names
                for target, operations in component(name)[0] for operation in operations
                if operation["op"] == "replace"]
    assert len(replaced) == len(set(replaced)), "two components replace the same thing"
    for manifest in with_component(*names, overlay=overlay):
        if manifest["kind"] not in ("StatefulSet", "Deployment"):
            continue
        kubernetes_validate.validate(manifest, "1.31", strict=True)
        pod = manifest["spec"]["template"]["spec"]
        volumes = [v["name"] for v in pod.get("volumes", [])]
        volumes += [c["metadata"]["name"] for c in manifest["spec"].get("volumeClaimTemplates", [])]
        assert len(volumes) == len(set(volumes))
        (container,) = pod["containers"]
        paths = [m["mountPath"] for m in container["volumeMounts"]]
        assert len(paths) == len(set(paths))
        assert {m["name"] for m in container["volumeMounts"]} == set(volumes)
        flags = [a.partition("=")[0] for a in container["args"]]
        assert len(flags) == len(set(flags))
        program = Path(os.environ["REPRISE_BIN"]) / container["command"][0]
        if program.name.startswith("reprise-"):
            help_text = subprocess.run(
                [program, "--help"], check=True, capture_output=True, text=True).stdout
            for flag in flags:
                assert re.search(re.escape(flag) + r"\b", help_text), f"{program.name}: {flag}"
