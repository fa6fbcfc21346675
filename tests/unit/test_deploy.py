"""deploy/: what would be applied to a cluster, checked as far as that can be without one."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from services.kit.installation import PREFIXES, install
from services.kit.settings import SERVICES, Settings, port_of
from tests.conftest import ROOT
from tests.support.manifests import DEPLOY, container, kubectl, lets, of_kind, one, pods, rendered

OVERLAYS = ("trial", "production")
PLANTED = "sk-planted-0123456789"
PARTS = [name.replace("_", "-") for name in SERVICES]
# The oldest that still gets fixes when this was written, and the newest whose schemas are here.
VERSIONS = ("1.34", "1.37")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


@pytest.fixture
def identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's folder, with a key of the LLM's planted."""
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    install(tmp_path / "identities")
    monkeypatch.delenv("OPENAI_API_KEY")
    return tmp_path / "identities"


def secrets(identities: Path, *own: Path) -> dict[str, dict[str, str]]:
    """What deploy/secrets.sh makes: each Secret's data, still encoded."""
    path = f"{Path(kubectl()).parent}{os.pathsep}{os.environ['PATH']}"
    made = subprocess.run(
        ["sh", str(DEPLOY / "secrets.sh"), str(identities), *map(str, own)],
        capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    found = [document for document in yaml.safe_load_all(made.stdout) if document]
    assert {document["metadata"]["namespace"] for document in found} == {"p2m"}
    return {document["metadata"]["name"]: document["data"] for document in found}


def decoded(data: dict[str, str], folder: Path) -> Path:
    """A Secret as the kubelet shows it to a pod: a file for each key."""
    import base64

    folder.mkdir()
    for name, value in data.items():
        (folder / name).write_bytes(base64.b64decode(value))
    return folder


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_one_that_kubernetes_takes(overlay: str, version: str) -> None:
    """Rendered by kubectl's Kustomize, each object fits Kubernetes' schema, and has no field that is not in it."""
    objects = rendered(overlay)
    assert len(objects) > 30
    for document in objects:
        kubernetes_validate.validate(document, version, strict=True)
        assert document["metadata"].get("namespace", "p2m") == "p2m"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_has_a_right_it_does_not_need(overlay: str) -> None:
    """Every pod fits the "restricted" standard, which the namespace enforces, and writes to its own volumes alone."""
    objects = rendered(overlay)
    labels = one(objects, "Namespace", "p2m")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, template in pods(objects).items():
        pod, part = template["spec"], container(template)
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] >= 999, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not pod.get("hostNetwork") and not pod.get("hostPID") and not pod.get("hostIPC"), name
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
        assert part["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }, name  # fmt: skip
        assert {"cpu", "memory"} <= part["resources"]["requests"].keys(), name
        assert "memory" in part["resources"]["limits"], name
        for volume in pod["volumes"]:
            assert volume.keys() & {"emptyDir", "secret"}, f"{name}: {volume}"
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_is_a_setting_that_can_be_read(
    overlay: str, identities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each variable of each pod is in settings.py (or said here), and with the part's Secret they make its settings."""
    known = {f"P2M_{name.upper()}" for name in Settings.model_fields}
    for field in Settings.model_fields.values():
        known |= set(getattr(field.validation_alias, "choices", ()))
    # Read by the settings themselves, by the demo's command, by the database's image.
    known |= {"P2M_SECRETS", "RUN", "POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"}
    objects, data = rendered(overlay), secrets(identities)
    maps = of_kind(objects, "ConfigMap")
    for name, template in pods(objects).items():
        part = container(template)
        own = {each["name"]: each.get("value", "") for each in part.get("env", [])}
        shared = [maps[each["configMapRef"]["name"]]["data"] for each in part.get("envFrom", [])]
        environment = {key: value for values in (*shared, own) for key, value in values.items()}
        assert environment.keys() <= known, f"{name}: {environment.keys() - known}"
        if name not in PREFIXES:
            continue
        folder = decoded(data[f"p2m-{name}"], tmp_path / name)
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            settings = Settings(_secrets_dir=folder)  # type: ignore[call-arg]
        for path in (settings.tls_ca, settings.tls_certificate, settings.tls_key):
            assert path is not None and path.parent == Path("/identity") and (folder / path.name).is_file()
        assert settings.s3_access_key == name and settings.s3_secret_key.get_secret_value()
        assert settings.store.startswith("s3://") and settings.s3_endpoint and settings.host == "0.0.0.0"
        for service in SERVICES:
            host, _, port = settings.target(service).partition(":")
            assert (host, int(port)) == (service.replace("_", "-"), port_of(service))


def test_every_part_is_what_it_is_in_compose(compose: dict[str, Any]) -> None:
    """Images, commands, settings and memory are those of docker-compose.yml, the user that of the Dockerfile."""
    objects = rendered("trial")
    shared = next(iter(of_kind(objects, "ConfigMap").values()))["data"]
    for name in (*PARTS, "orchestrator", "demo", "object-store", "postgres"):
        theirs, ours = compose["services"][name], container(pods(objects)[name])
        image = re.sub(r"\$\{\w+:-(.+)\}", r"\1", theirs["image"])
        assert ours["image"] == image, name
        if name in ("object-store", "postgres"):
            continue
        limit = re.sub(r"\$\{\w+:-(.+)\}", r"\1", str(theirs["mem_limit"]))
        assert ours["resources"]["limits"]["memory"] == limit.replace("g", "Gi"), name
        environment = dict(shared) | {each["name"]: each.get("value") for each in ours.get("env", [])}
        for key, value in theirs["environment"].items():
            given = re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value))
            # The password of the page may stand in the demo's Secret; slots of trainers are said in both.
            assert given == "" or environment.get(key) == given, f"{name}: {key}"
    page = [re.sub(r"\$\{RUN:-demo\}", "$(RUN)", word) for word in compose["services"]["demo"]["command"]]
    assert container(pods(objects)["demo"])["command"] == page
    store = container(pods(objects)["object-store"])["command"]
    assert store == ["weed", *shlex.split(compose["services"]["object-store"]["command"])]
    bucket = container(pods(objects)["bucket"])
    assert bucket["command"] == compose["services"]["bucket"]["command"]
    dockerfile = (ROOT / "services" / "Dockerfile").read_text()
    for name in PREFIXES:
        pod = pods(objects)[name]["spec"]
        assert f"useradd --uid {pod['securityContext']['runAsUser']} " in dockerfile
        mounts = {mount["mountPath"] for mount in container(pods(objects)[name])["volumeMounts"]}
        assert mounts == {"/identity", "/tmp", "/home/p2m"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_stand_for_all_replicas_and_health_is_asked_over_grpc(overlay: str) -> None:
    """Each gRPC part has a headless Service whose selector finds its pods alone, and probes that ask its health."""
    objects = rendered(overlay)
    for service, part in zip((*SERVICES, "run"), (*PARTS, "orchestrator"), strict=True):
        found = one(objects, "Service", part)["spec"]
        template = pods(objects)[part]
        assert found["clusterIP"] == "None"
        chosen = [n for n, p in pods(objects).items() if found["selector"].items() <= p["metadata"]["labels"].items()]
        assert chosen == [part]
        (port,) = found["ports"]
        assert port["port"] == port_of(service) == container(template)["ports"][0]["containerPort"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container(template)[kind]["exec"]["command"] == ["python", "-m", "services.kit.probe", service]
            # The probe itself gives up after 4 s.
            assert container(template)[kind]["timeoutSeconds"] > 4


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_disruptions_and_load_find_their_deployments(overlay: str) -> None:
    """Every budget and autoscaler is of a Deployment that is there; one that is scaled does not say how many it is."""
    objects = rendered(overlay)
    deployments = of_kind(objects, "Deployment")
    budgets = of_kind(objects, "PodDisruptionBudget")
    assert budgets.keys() == {*PARTS, "orchestrator"}
    for name, budget in budgets.items():
        labels = deployments[name]["spec"]["template"]["metadata"]["labels"]
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    scalers = of_kind(objects, "HorizontalPodAutoscaler")
    assert scalers.keys() == ({"generator", "trainer"} if overlay == "production" else set())
    for name, scaler in scalers.items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in deployments[name]["spec"]
        assert "cpu" in container(pods(objects)[name])["resources"]["requests"]
    assert deployments["orchestrator"]["spec"]["replicas"] >= 2


def test_a_draining_pod_has_the_time_that_draining_takes() -> None:
    """A pod is killed no sooner than its calls had their grace, and its children theirs after that."""
    for name, template in pods(rendered("production")).items():
        if name in (*PARTS, "orchestrator"):
            own = {each["name"]: each["value"] for each in container(template).get("env", [])}
            grace = float(own.get("P2M_GRACE_S", Settings.model_fields["grace_s"].default))
            assert template["spec"]["terminationGracePeriodSeconds"] >= 2 * grace + 10, name


def test_trainers_and_evaluators_have_a_gpu_where_it_is_asked_for() -> None:
    """The GPU component asks for one, chooses nodes that have one, and leaves every other part alone."""
    for name, template in pods(rendered("production")).items():
        on_gpu = name in ("trainer", "evaluator")
        assert container(template)["resources"]["limits"].get("nvidia.com/gpu") == (1 if on_gpu else None)
        assert template["spec"].get("nodeSelector") == ({"nvidia.com/gpu.present": "true"} if on_gpu else None)
        assert bool(template["spec"].get("tolerations")) == on_gpu


def test_metrics_are_where_the_annotations_say() -> None:
    """Each part tells Prometheus the port that its settings open, and lets nobody in there but that namespace."""
    objects = rendered("production")
    shared = next(iter(of_kind(objects, "ConfigMap").values()))["data"]
    (rule,) = one(objects, "NetworkPolicy", "metrics")["spec"]["ingress"]
    assert [str(port["port"]) for port in rule["ports"]] == [shared["P2M_METRICS_PORT"]]
    for name in (*PARTS, "orchestrator"):
        annotations = pods(objects)[name]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == shared["P2M_METRICS_PORT"]
        assert not lets(objects, "client", name, int(shared["P2M_METRICS_PORT"]))


def test_only_those_speak_who_must() -> None:
    """In the trial's cluster each pair of parts may speak or not as drawn in network-policies.yaml."""
    objects = rendered("trial")
    ports = {part: port_of(service) for service, part in zip(SERVICES, PARTS, strict=True)}
    ports |= {"orchestrator": port_of("run"), "object-store": 8333, "postgres": 5432, "demo": 7860}
    wanted = {("orchestrator", part) for part in PARTS}
    wanted |= {("client", "orchestrator"), ("demo", "orchestrator"), ("demo", "evaluator")}
    wanted |= {(part, "object-store") for part in (*PREFIXES, "bucket", "gc", "object-store", "postgres")}
    wanted |= {("orchestrator", "postgres"), ("gc", "postgres")}
    found = {
        (source, target) for source in pods(objects) for target, port in ports.items()
        if lets(objects, source, target, port)
    }  # fmt: skip
    assert found == wanted
    # A port that is not a service's own stays shut to those who may speak to it.
    assert not lets(objects, "orchestrator", "trainer", 22)


def test_services_reach_the_llm_and_nothing_reaches_a_clouds_credentials() -> None:
    """HTTPS to the world is open; the link-local addresses, where a cloud tells a node's credentials, are not."""
    for overlay in OVERLAYS:
        objects = rendered(overlay)
        for part in PREFIXES:
            assert lets(objects, part, "203.0.113.7", 443)
            assert not lets(objects, part, "203.0.113.7", 80)
            assert not lets(objects, part, "169.254.169.254", 443)
            assert not lets(objects, part, "169.254.169.254", 80)


def test_each_pods_secret_is_made_and_no_other(identities: Path) -> None:
    """secrets.sh makes every Secret that a pod is shown; the authority's key and another part's are in none."""
    data = secrets(identities)
    shown = {
        volume["secret"]["secretName"]
        for overlay in OVERLAYS
        for template in pods(rendered(overlay)).values()
        for volume in template["spec"]["volumes"]
        if "secret" in volume
    }
    assert shown == data.keys()
    assert not any("ca.key" in files for files in data.values())
    mine = sorted(path.name for path in (identities / "trainer").iterdir())
    assert sorted(data["p2m-trainer"]) == mine
    assert data["p2m-postgres"].keys() == {"password"}


def test_the_daily_sweep_has_the_administrators_keys_and_works_alone(identities: Path) -> None:
    """It runs `p2m gc`, never twice at once, with keys to all of the store and the orchestrator's database."""
    data = secrets(identities)
    for overlay in OVERLAYS:
        objects = rendered(overlay)
        assert one(objects, "CronJob", "gc")["spec"]["concurrencyPolicy"] == "Forbid"
        pod = pods(objects)["gc"]
        assert container(pod)["command"] == ["p2m", "gc"]
        (shown,) = (volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume)
        assert data[shown]["p2m_database"] == data["p2m-orchestrator"]["p2m_database"]
        assert data[shown]["p2m_s3_secret_key"] != data["p2m-orchestrator"]["p2m_s3_secret_key"]


def test_a_store_and_a_database_of_ones_own_take_the_place(identities: Path, tmp_path: Path) -> None:
    """Files in own/<part> and own/all go before those that the installation drew."""
    own = tmp_path / "own"
    for part, name, value in (
        ("all", "p2m_s3_access_key", "given"),
        ("trainer", "p2m_s3_access_key", "its own"),
        ("orchestrator", "p2m_database", "postgresql+psycopg://u:p@db.example:5432/p2m"),
    ):
        (own / part).mkdir(parents=True, exist_ok=True)
        (own / part / name).write_text(value)
    data = secrets(identities, own)
    found = {part: decoded(data[f"p2m-{part}"], tmp_path / f"of-{part}") for part in PREFIXES}
    keys = {part: (folder / "p2m_s3_access_key").read_text() for part, folder in found.items()}
    assert keys == {part: "its own" if part == "trainer" else "given" for part in PREFIXES}
    assert "db.example" in (found["orchestrator"] / "p2m_database").read_text()


def test_no_secret_is_in_a_manifest(identities: Path) -> None:
    """What is applied has no Secret, nothing of a Secret, and no variable that would hold one."""
    planted = {
        path.read_text() for path in identities.rglob("*")
        if path.is_file() and path.name in ("p2m_token", "p2m_s3_secret_key", "password", "openai_api_key")
    }  # fmt: skip
    hidden = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    for overlay in OVERLAYS:
        objects = rendered(overlay)
        assert not of_kind(objects, "Secret")
        text = yaml.safe_dump_all(objects)
        assert not any(secret and secret in text for secret in planted)
        assert not any(f"P2M_{name.upper()}" in text for name in hidden)
        assert "OPENAI_API_KEY" not in text and "PRIVATE KEY" not in text


def test_what_the_page_says_of_folders_and_files_is_so() -> None:
    """Every path that the deployment's README names is there."""
    text = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"deploy/[\w/.-]*\w", text))
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]
