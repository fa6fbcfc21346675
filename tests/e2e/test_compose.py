"""The form of docker-compose.yml. `test_containers.py` starts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit.installation import ADMIN, PREFIXES
from services.kit.settings import SERVICES, Settings, port_of

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def test_every_service_has_a_container_and_a_place_of_its_own(stack: dict[str, Any]) -> None:
    """Each of the six services is built for itself, sees its own identity, and is where the others look for it."""
    for service in SERVICES:
        host = service.replace("_", "-")
        part = stack["services"][host]
        assert part["build"]["args"]["SERVICE"] == service
        assert part["environment"][f"P2M_{service.upper()}_TARGET"] == f"{host}:{port_of(service)}"
        assert [volume for volume in part["volumes"] if "identity" in volume] == [f"{host}-identity:/identity:ro"]
        assert host in PREFIXES


def test_every_part_of_an_installation_is_written_at_the_first_start(stack: dict[str, Any]) -> None:
    """The container that makes identities is shown every part's volume, so that none is lost when it ends."""
    shown = {volume.rpartition("/")[2] for volume in stack["services"]["install"]["volumes"] if "-identity" in volume}
    assert shown == {*PREFIXES, ADMIN, "object-store", "postgres"}


def test_every_variable_is_a_setting(stack: dict[str, Any]) -> None:
    """No container gets a P2M_ variable that nothing reads."""
    known = {f"P2M_{name.upper()}" for name in Settings.model_fields} | {"P2M_DEMO_PASSWORD", "P2M_SECRETS"}
    for name, part in stack["services"].items():
        given = {variable for variable in part.get("environment", {}) if variable.startswith("P2M_")}
        assert given <= known, name


def test_no_secret_is_in_a_containers_environment(stack: dict[str, Any]) -> None:
    """Keys and passwords are files of one part; only the container that writes them is given any."""
    secret = re.compile("KEY$|TOKEN$|PASSWORD$|SECRET$")
    for name, part in stack["services"].items():
        if name in ("install", "demo"):
            continue
        given = [variable for variable in part.get("environment", {}) if secret.search(variable)]
        assert given in ([], ["P2M_TLS_KEY"]), name  # a path


def test_our_containers_have_no_right_that_they_do_not_need(stack: dict[str, Any]) -> None:
    """A read-only root, no capability, no new privilege, bounded memory and processes."""
    for name in (*(service.replace("_", "-") for service in SERVICES), "orchestrator", "demo", "p2m", "admin"):
        part = stack["services"][name]
        assert part["read_only"] and part["cap_drop"] == ["ALL"], name
        assert part["security_opt"] == ["no-new-privileges:true"] and part["mem_limit"] and part["pids_limit"], name


def test_only_the_demo_is_published_and_only_here(stack: dict[str, Any]) -> None:
    """No port is open to other machines."""
    published = {name: part["ports"] for name, part in stack["services"].items() if "ports" in part}
    assert published == {"demo": ["127.0.0.1:7860:7860"]}
