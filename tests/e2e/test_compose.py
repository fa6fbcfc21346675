"""The stack of docker-compose.yml: its form, and, with `make compose-test`, a run through all of its containers."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit.settings import SERVICES, Settings, port_of

ROOT = Path(__file__).resolve().parent.parent.parent
SECRETS = ("P2M_TOKEN", "P2M_S3_SECRET_KEY", "P2M_STORE_SIGNING_KEY", "P2M_POSTGRES_PASSWORD")


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_every_service_has_a_container_with_a_certificate_and_a_port_of_its_own(stack: dict[str, Any]) -> None:
    """Each of the six services is built for itself, shows its own certificate, and is where the others look for it."""
    certificates = stack["services"]["certificates"]["command"][2].split()
    for service in SERVICES:
        host = service.replace("_", "-")
        part = stack["services"][host]
        assert part["build"]["args"]["SERVICE"] == service
        assert part["environment"]["P2M_TLS_CERTIFICATE"] == f"/certificates/{host}/certificate.pem"
        assert part["environment"][f"P2M_{service.upper()}_TARGET"] == f"{host}:{port_of(service)}"
        assert host in certificates


def test_every_variable_is_a_setting(stack: dict[str, Any]) -> None:
    """No container gets a P2M_ variable that nothing reads."""
    known = {f"P2M_{name.upper()}" for name in Settings.model_fields} | {"P2M_DEMO_PASSWORD"}
    for name, part in stack["services"].items():
        given = {variable for variable in part.get("environment", {}) if variable.startswith("P2M_")}
        assert given <= known, name


def test_no_secret_has_a_default(stack: dict[str, Any]) -> None:
    """Every secret must be given: compose refuses to start without it. `make .env` draws them all."""
    text = (ROOT / "docker-compose.yml").read_text()
    for name in SECRETS:
        assert f"${{{name}:?" in text
        assert not re.search(rf"\${{{name}:-", text)
        assert name in (ROOT / "Makefile").read_text()


def test_only_the_demo_is_published_and_only_here(stack: dict[str, Any]) -> None:
    """No port is open to other machines."""
    published = {name: part["ports"] for name, part in stack["services"].items() if "ports" in part}
    assert published == {"demo": ["127.0.0.1:7860:7860"]}


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Any]:
    """`compose("up", ...)` of a project of the test's own, taken down with its volumes at the end."""
    secret = {name: secrets.token_hex(16) for name in SECRETS}

    def run(*arguments: str, timeout_s: float = 600) -> str:
        command = ["docker", "compose", "-p", "p2m-test", *arguments]
        ended = subprocess.run(
            command, cwd=ROOT, env=os.environ | secret, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        assert ended.returncode == 0, (ended.stdout + ended.stderr)[-5000:]
        return ended.stdout

    yield run
    run("--profile", "demo", "down", "--volumes", "--timeout", "20")


@pytest.mark.compose
@pytest.mark.timeout(3600)
def test_a_run_goes_through_all_containers(compose: Any) -> None:
    """The images build, every container becomes healthy, and a prompt becomes a measured model, without any LLM."""
    compose("build", timeout_s=1800)
    compose("up", "--wait", timeout_s=600)
    said = compose(
        "exec", "-T", "orchestrator", "p2m", "run", "/app/examples/normalise-dates/prompt.txt", "--name", "compose",
        "--skip", "generate", "--dataset", "p2m/normalise-dates", "--max-train-time", "60s", "--max-rows", "200",
        "--connect", "orchestrator:50050", "--out", "/tmp/result",
    )  # fmt: skip
    assert said
    listed = compose("exec", "-T", "orchestrator", "p2m", "show", "compose", "--connect", "orchestrator:50050")
    assert "exact" in listed.lower()
