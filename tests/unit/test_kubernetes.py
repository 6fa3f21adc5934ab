"""The manifests of deploy/kubernetes: valid, safe, and of this service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from statsapi import __version__
from statsapi.config import Settings, env_names
from statsapi.routes import ROUTES
from statsapi.server import gunicorn_conf

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def documents(path: Path, *, uncommented: bool = False) -> list[dict[str, Any]]:
    text = path.read_text()
    if uncommented:  # what the file offers to be switched on
        text = re.sub(r"^( +)# (?=- \{?name: STATSAPI_|  valueFrom)", r"\1", text, flags=re.MULTILINE)
    return list(yaml.safe_load_all(text))


def pod(path: Path, **options: Any) -> dict[str, Any]:
    (found,) = (each for each in documents(path, **options) if each["kind"] in ("StatefulSet", "Deployment"))
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def test_there_are_two() -> None:
    """One for a journal on a volume, one for a journal in Redis."""
    assert [path.name for path in MANIFESTS] == ["redis.yaml", "sqlite.yaml"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("uncommented", [False, True])
def test_they_are_valid(path: Path, uncommented: bool) -> None:
    """By Kubernetes' own schemas, strictly: also with all that is offered in comments."""
    for document in documents(path, uncommented=uncommented):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "kindd": 1}, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_they_speak_of_this_service(path: Path) -> None:
    """Settings, paths, port, user, image and patience are those of the code, the image and Gunicorn's configuration."""
    spec = pod(path, uncommented=True)
    (container,) = spec["containers"]
    names = [each["name"] for each in container["env"]]
    assert set(names) <= set(env_names().values())
    assert {"STATSAPI_JOURNAL", "STATSAPI_TRUSTED_PROXIES", "STATSAPI_API_KEYS"} <= set(names)
    Settings.from_env({each["name"]: each["value"] for each in container["env"] if "value" in each})
    routes = {route.rule for route in ROUTES}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["path"] in routes
        assert asked["port"] == "http"
    (port,) = container["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    assert f"--bind 0.0.0.0:{port['containerPort']}" in DOCKERFILE
    assert f"useradd --uid {spec['securityContext']['runAsUser']} " in DOCKERFILE
    assert container["image"] == f"statsapi:{__version__}"
    assert spec["terminationGracePeriodSeconds"] > gunicorn_conf.graceful_timeout


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_they_are_safe(path: Path) -> None:
    """No root, no rights, a root file system that cannot be written, no token, and no variables of Kubernetes' own."""
    spec = pod(path)
    (container,) = spec["containers"]
    assert spec["enableServiceLinks"] is spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() == {"cpu", "memory"}
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert mounted >= {"/tmp", "/dev/shm"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_their_parts_find_each_other(path: Path) -> None:
    """Selectors choose the pods, the service's port is the pod's, mounts are there, the groups are the user's."""
    spec, port_names = pod(path), {each["name"] for each in pod(path)["containers"][0]["ports"]}
    claims = set()
    for document in documents(path):
        if document["kind"] in ("StatefulSet", "Deployment"):
            labels = document["spec"]["template"]["metadata"]["labels"]
            claims = {each["metadata"]["name"] for each in document["spec"].get("volumeClaimTemplates", ())}
    for document in documents(path):
        selector = document["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()
        if document["kind"] == "Service":
            assert {each["targetPort"] for each in document["spec"]["ports"]} <= port_names
    volumes = {each["name"] for each in spec["volumes"]} | claims
    assert {each["name"] for each in spec["containers"][0]["volumeMounts"]} == volumes
    rights = spec["securityContext"]
    assert {rights["runAsUser"], rights["runAsGroup"], rights.get("fsGroup", rights["runAsUser"])} == {10_001}
    assert ("fsGroup" in rights) == bool(claims)


def test_only_one_pod_has_the_file() -> None:
    """The SQLite journal is in the volume, which one pod may have; Redis' password comes from a secret."""
    (one,) = (each for each in documents(MANIFESTS[1]) if each["kind"] == "StatefulSet")
    assert one["spec"]["replicas"] == 1
    assert one["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    (container,) = pod(MANIFESTS[1])["containers"]
    (folder,) = (each["mountPath"] for each in container["volumeMounts"] if each["name"] == "data")
    assert container["env"][0]["value"] == f"sqlite:///{folder}/events.db"
    assert "secretKeyRef" in pod(MANIFESTS[0])["containers"][0]["env"][0]["valueFrom"]
