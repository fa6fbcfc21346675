"""What the first start of an installation writes, and what the store's real server makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import outcome
from orchestrator.service import RunService
from services.kit.artifacts import open_store
from services.kit.errors import PermissionDenied
from services.kit.installation import ADMIN, PREFIXES, install, make_bucket
from services.kit.settings import Settings
from tests.support.seaweed import Seaweed, seaweed

PLANTED = "sk-planted-0123456789"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation's folder, with a key of the LLM's planted."""
    monkeypatch.setenv("OPENAI_API_KEY", PLANTED)
    install(tmp_path / "identities")
    return tmp_path / "identities"


@pytest.fixture
def server(installed: Path, tmp_path: Path) -> Iterator[Seaweed]:
    folder = tmp_path / "weed"
    folder.mkdir()
    with seaweed(folder, installed / "object-store") as running:
        yield running


def settings_of(part: Path, endpoint: str, tmp_path: Path) -> Settings:
    """The settings of a part whose secrets are in its own folder."""
    own = {"home": tmp_path / "home", "store": "s3://p2m", "s3_endpoint": endpoint, "hub_offline": True}
    return Settings(**own, _secrets_dir=part)  # type: ignore[arg-type]


def test_each_part_writes_under_its_own_prefix_and_reads_what_it_must(
    installed: Path, server: Seaweed, tmp_path: Path
) -> None:
    """The trainer's keys write models and read generated rows; they cannot write for others or read paid answers."""
    make_bucket(settings_of(installed / "admin", server.endpoint, tmp_path))
    stores = {part: open_store(settings_of(installed / part, server.endpoint, tmp_path)) for part in PREFIXES}
    for part, prefix in PREFIXES.items():
        stores[part].put(f"{prefix}/of-{part}", part.encode())
        assert stores[part].get(f"{prefix}/of-{part}") == part.encode()
    assert stores["trainer"].get("generator/of-generator") == b"generator"
    for key in ("generator/x", "catalogue/x", "orchestrator/x"):
        with pytest.raises(PermissionDenied):
            stores["trainer"].put(key, b"")
    with pytest.raises(PermissionDenied):
        stores["trainer"].get("parser/of-parser")
    with pytest.raises(PermissionDenied):
        stores["parser"].get("trainer/of-trainer")
    with pytest.raises(PermissionDenied):
        stores["generator"].delete("trainer/of-trainer")
    assert stores["client"].get("trainer/of-trainer") == b"trainer"
    with pytest.raises(PermissionDenied):
        stores["orchestrator"].delete("trainer/of-trainer")
    assert stores["orchestrator"].get("orchestrator/of-client") == b"client"
    assert stores["client"].get("run/of-orchestrator") == b"orchestrator"


def test_the_administrator_alone_removes_what_others_wrote(installed: Path, server: Seaweed, tmp_path: Path) -> None:
    """Its keys list, read and delete under every prefix, as `p2m gc` does, and it knows the orchestrator's database."""
    settings = settings_of(installed / ADMIN, server.endpoint, tmp_path)
    make_bucket(settings)
    for part, prefix in PREFIXES.items():
        open_store(settings_of(installed / part, server.endpoint, tmp_path)).put(f"{prefix}/x", part.encode())
    store = open_store(settings)
    written = {f"{prefix}/x" for prefix in PREFIXES.values()}
    assert {key for key in store.list("") if key.endswith("/x")} == written
    for key in written:
        assert store.get(key)
        store.delete(key)
    assert not [key for key in store.list("") if key.endswith("/x")]
    orchestrator = settings_of(installed / "orchestrator", server.endpoint, tmp_path)
    assert settings.database_url == orchestrator.database_url
    others = {path.parent.name for path in installed.rglob("p2m_database")}
    assert others == {"orchestrator", ADMIN}


def test_the_orchestrators_prefix_is_that_of_its_reports() -> None:
    """What a run ends with is written under the prefix that the orchestrator's keys are for."""
    assert PREFIXES["orchestrator"] == outcome.SERVICE == RunService.name


def test_the_key_of_the_llm_goes_to_those_who_call_it_alone(installed: Path) -> None:
    """Trainer, orchestrator, client and page have no file with it."""
    holders = {path.parent.name for path in installed.rglob("*") if path.is_file() and PLANTED in path.read_text()}
    assert holders == {"parser", "dataset-retriever", "generator", "model-retriever", "evaluator"}


def test_nobody_but_the_installation_has_the_authoritys_key(installed: Path) -> None:
    """A part that is broken into cannot sign certificates."""
    assert [path.parent.name for path in installed.rglob("ca.key")] == ["authority"]


def test_a_second_start_keeps_every_secret(installed: Path) -> None:
    """Passwords and keys are those of the first start: the database and the store still know them."""
    kept = ("p2m_s3_secret_key", "p2m_token", "p2m_database", "password", "s3.json", "security.toml", "ca.pem")
    before = {path: path.read_bytes() for path in installed.rglob("*") if path.name in kept}
    install(installed)
    assert {path: path.read_bytes() for path in installed.rglob("*") if path.name in kept} == before


def test_secrets_are_read_from_files_and_the_environment_goes_first(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A part's settings hold the keys in its folder; a variable overrides its file."""
    monkeypatch.delenv("OPENAI_API_KEY")
    found = settings_of(installed / "generator", "localhost:1", tmp_path)
    assert found.openai_api_key.get_secret_value() == PLANTED
    assert found.s3_access_key == "generator"
    monkeypatch.setenv("P2M_S3_ACCESS_KEY", "another")
    assert settings_of(installed / "generator", "localhost:1", tmp_path).s3_access_key == "another"
