"""`p2m doctor`: every fault is found, told with what to do, and told without a secret."""

from __future__ import annotations

import datetime
import io
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from bench.idle import idle
from orchestrator.doctor import command, here, reached
from orchestrator.doctor.finding import Finding
from orchestrator.terminal import Terminal
from services.kit.settings import Settings
from tests.support.cli import Cli
from tests.support.seaweed import Seaweed, free_ports

SECRET = "sk-planted-0123456789"


@pytest.fixture
def own(settings: Settings) -> Settings:
    """Settings with a key, that reach nobody."""
    return settings.model_copy(
        update={
            "hub_offline": True, "openai_base_url": f"http://127.0.0.1:{free_ports(1)[0]}/v1",
            "openai_api_key": type(settings.openai_api_key)(SECRET),
        }
    )  # fmt: skip


@pytest.fixture
async def endpoint() -> AsyncIterator[dict[str, object]]:
    """An LLM's endpoint and a hub: "models" is what it lists, "key" what it asks for, "date" its clock."""
    state: dict[str, object] = {"models": ["gpt-4o-mini"], "key": SECRET, "date": ""}

    async def models(request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {state['key']}":
            return web.json_response({"error": {"message": f"wrong key {SECRET}"}}, status=401)
        return web.json_response(
            {"object": "list", "data": [{"id": one, "object": "model"} for one in state["models"]]}
        )  # type: ignore[attr-defined]

    async def root(_: web.Request) -> web.Response:
        return web.Response(headers={"date": str(state["date"])} if state["date"] else {})

    async def whoami(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.headers.get("authorization") == f"Bearer {state['key']}" else 401)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_get("/api/whoami-v2", whoami)
    app.router.add_route("HEAD", "/", root)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    state["url"] = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield state
    await runner.cleanup()


def states(found: list[Finding], what: str) -> set[str]:
    """How one thing was found."""
    return {one.state for one in found if one.what == what}


# -- the whole


async def test_a_sound_machine_is_told_so(own: Settings, endpoint: dict[str, object]) -> None:
    """Nothing is wrong, the store and database are written and left as they were, and the status is 0."""
    settings = own.model_copy(update={"openai_base_url": f"{endpoint['url']}/v1"})
    out = io.StringIO()
    status = await command.doctor(Terminal(out, io.StringIO(), Path("log")), settings, "", True)
    found = json.loads(out.getvalue())
    assert status == 0, found
    assert {one["what"] for one in found} >= {"settings", "tls", "store", "database", "teacher", "hub", "packages"}
    assert not [path for path in (settings.home_folder / "store").rglob("*") if path.is_file()]


async def test_no_secret_is_told(own: Settings, endpoint: dict[str, object], tmp_path: Path) -> None:
    """A key that is refused, and a password in the database's URL, are nowhere in what is told."""
    endpoint["key"] = "another"
    settings = own.model_copy(
        update={
            "openai_base_url": f"{endpoint['url']}/v1", "store": "s3://b",
            "s3_endpoint": f"127.0.0.1:{free_ports(1)[0]}", "s3_access_key": "me",
            "s3_secret_key": own.openai_api_key,
            "database": f"postgresql://p2m:{SECRET}@127.0.0.1:{free_ports(1)[0]}/p2m",
        }
    )  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    for as_json in (False, True):
        assert await command.doctor(Terminal(out, err, Path("log")), settings, "", as_json) == 1
    told = out.getvalue() + err.getvalue()
    assert SECRET not in told and told.count("WRONG") >= 3
    assert {"store", "database", "teacher"} <= {
        one["what"] for one in json.loads(told.splitlines()[-2 if told.endswith("wrong.\n") else -1]) if one["todo"]
    }


async def test_the_command_line(tmp_path: Path) -> None:
    """`p2m doctor` as a person types it: a table, what to do, status 1 where the LLM is out of reach."""
    ended = await Cli(tmp_path)("doctor")
    assert ended.status == 1
    assert "teacher" in ended.out and "WRONG" in ended.out and "→ Check OPENAI_BASE_URL." in ended.out


async def test_the_services_there_are_looked_at(own: Settings) -> None:
    """Each service that is set tells its health and version; one that is not there is wrong."""
    async with idle(own) as targets:
        gone = f"127.0.0.1:{free_ports(1)[0]}"
        found = await reached.services(own.model_copy(update={**targets, "trainer_target": gone}), "")
    assert states(found, "trainer") == {"wrong"}
    assert states(found, "parser") == {"ok"} and "version 0." in next(o.told for o in found if o.what == "parser")


# -- one fault each


def test_a_mistyped_variable_is_found() -> None:
    """A name that is no setting is told with the one that was meant."""
    [found] = here.variables({"P2M_STOER": "x", "PATH": "/bin", "P2M_SECRETS": "/x"})
    assert found.state == "warning" and "P2M_STORE" in found.todo


def test_secrets(tmp_path: Path) -> None:
    """A folder that is absent is wrong; a file that anybody may read is warned of; one that is closed is well."""
    assert [one.state for one in here.secrets(str(tmp_path / "absent"))] == ["wrong"]
    (tmp_path / "p2m_token").write_text(SECRET)
    (tmp_path / "p2m_token").chmod(0o644)
    assert [one.state for one in here.secrets(str(tmp_path))] == ["warning"]
    (tmp_path / "p2m_token").chmod(0o600)
    assert [one.state for one in here.secrets(str(tmp_path))] == ["ok"]
    assert not [*here.secrets("")]


@pytest.mark.parametrize(
    ("days", "fault", "state", "told"),
    [
        (300, "", "ok", "good until"), (5, "", "warning", "ends on"), (-1, "", "wrong", "out of its time"),
        (300, "key", "wrong", "not the key"), (300, "ca", "wrong", "has not signed"), (300, "part", "wrong", "missing"),
        (300, "text", "wrong", "cannot be read"),
    ],
)  # fmt: skip
def test_tls(own: Settings, tmp_path: Path, days: int, fault: str, state: str, told: str) -> None:
    """A certificate that ends soon or has ended, another's key, another authority, a missing part, no PEM."""
    write_certificates(tmp_path, days)
    write_certificates(tmp_path / "other", 300)
    paths = {"tls_ca": "ca.pem", "tls_certificate": "own.pem", "tls_key": "own.key"}
    chosen: dict[str, Path | None] = {name: tmp_path / file for name, file in paths.items()}
    if fault in ("key", "ca"):
        chosen[f"tls_{fault}"] = tmp_path / "other" / paths[f"tls_{fault}"]
    elif fault == "part":
        chosen["tls_key"] = None
    elif fault == "text":
        (tmp_path / "own.pem").write_text("no certificate")
    found = [*here.tls(own.model_copy(update=chosen))]
    assert any(one.state == state and told in one.told for one in found), found


def test_a_taken_port_is_found(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another program listens at is named."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        port = one.getsockname()[1]
        monkeypatch.setattr(here, "RUN_PORT", port)
        found = [*here.ports(own)]
    assert found[0].state == "warning" and f"{port} (run)" in found[0].told


def test_disk_memory_packages(own: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, too little memory, an absent package: wrong, each with what to do."""
    monkeypatch.setattr(here.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1e6})())
    monkeypatch.setattr(here, "_available", lambda: 5e8)
    monkeypatch.setattr(here, "_EXTRAS", {"trainer": "no_such_module_at_all"})
    found = [*here.disk(own), *here.memory(), *here.packages()]
    assert [one.state for one in found] == ["wrong"] * 3 and all(one.todo for one in found)
    monkeypatch.setattr(here, "_available", lambda: 2e9)
    assert [one.state for one in here.memory()] == ["warning"]


def test_a_wrong_retention_is_found(own: Settings) -> None:
    """What p2m gc would refuse is told before."""
    assert [one.state for one in here.kept(own.model_copy(update={"retention": "all=1d"}))] == ["wrong"]
    assert not [*here.kept(own)]


def test_databases(own: Settings, tmp_path: Path) -> None:
    """A URL that is none, a file that is no database, a server that is away."""
    (tmp_path / "broken.sqlite").write_bytes(b"no database, but some bytes " * 99)
    for url in (
        "nonsense",
        "mysql://x/y",
        f"sqlite:///{tmp_path}/broken.sqlite",
        f"postgresql://127.0.0.1:{free_ports(1)[0]}/p",
    ):
        assert states([*reached.database(own.model_copy(update={"database": url}))], "database") == {"wrong"}, url
    assert states([*reached.database(own)], "database") == {"ok"}


def test_a_store_that_refuses_is_found(own: Settings, tmp_path: Path, s3_server: Seaweed) -> None:
    """A real S3 server is written and left empty; with a wrong key it is wrong, and so is a store that is a file."""
    there = s3_server.settings(own.home_folder, store="s3://doctor")
    assert states([*reached.store(there)], "store") == {"ok"}
    stranger = there.model_copy(update={"s3_secret_key": own.openai_api_key})
    assert states([*reached.store(stranger)], "store") == {"wrong"}
    (tmp_path / "file").write_text("")
    assert states([*reached.store(own.model_copy(update={"store": str(tmp_path / "file")}))], "store") == {"wrong"}


async def test_the_teacher(own: Settings, endpoint: dict[str, object]) -> None:
    """A refused key and a silent endpoint are wrong; a model that is not listed is warned of."""
    settings = own.model_copy(update={"openai_base_url": f"{endpoint['url']}/v1"})
    assert states(await reached.teacher(settings), "teacher") == {"ok"}
    endpoint["models"] = ["other"]
    assert states(await reached.teacher(settings), "teacher") == {"warning"}
    endpoint["key"] = "another"
    assert states(await reached.teacher(settings), "teacher") == {"wrong"}
    assert states(await reached.teacher(own), "teacher") == {"wrong"}


async def test_the_hub_and_the_clock(own: Settings, endpoint: dict[str, object]) -> None:
    """A hub that is away, a token that it refuses, a clock that is an hour off."""
    settings = own.model_copy(
        update={"hub_offline": False, "hub_url": str(endpoint["url"]), "hub_token": own.openai_api_key}
    )
    assert states(await reached.hub(settings), "hub") == {"ok"}
    endpoint["key"] = "another"
    assert states(await reached.hub(settings), "hub") == {"wrong"}
    endpoint["date"] = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime(
        "%a, %d %b %Y %H:%M:%S GMT"
    )
    assert states(await reached.hub(settings), "clock") == {"warning"}
    away = settings.model_copy(update={"hub_url": f"http://127.0.0.1:{free_ports(1)[0]}"})
    assert states(await reached.hub(away), "hub") == {"warning"}


def write_certificates(folder: Path, days: int) -> None:
    """An authority, and a certificate of its that ends in `days`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(exist_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "own")}
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    for name, lasts in (("ca", 3650), ("own", days)):
        subject = issuer if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(issuer, subject, keys[name].public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(days=10))
        builder = builder.not_valid_after(now + datetime.timedelta(days=lasts))
        one = builder.add_extension(x509.BasicConstraints(name == "ca", None), True).sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(one.public_bytes(serialization.Encoding.PEM))
        plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(keys[name].private_bytes(*plain))
