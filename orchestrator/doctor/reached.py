"""What must be reached: the store, the database, the teacher, the hub, the services; and whether their clocks agree."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import sqlalchemy as sa

from orchestrator.database import open_engine
from orchestrator.doctor.finding import Finding, ok, warning, wrong
from services.kit import offline_teacher
from services.kit.artifacts import open_store
from services.kit.errors import NotFound, P2MError
from services.kit.server import own_version
from services.kit.settings import SERVICES, Settings

_WITHIN_S = 8.0
_SKEW_S = 30.0


def store(settings: Settings) -> Iterator[Finding]:
    """Writes an object, reads it, looks for it and deletes it."""
    where = settings.store or str(settings.home_folder / "store")
    key, began = f"orchestrator/doctor/{uuid.uuid4().hex}", time.perf_counter()
    try:
        there = open_store(settings.model_copy(update={"store_patience_s": 0.0}))
        there.put(key, b"looked at")
        found, stored = there.get(key), there.stat(key)
        there.delete(key)
        left = there.stat(key)
    except P2MError as error:
        yield wrong("store", error.message, "Check P2M_STORE, P2M_S3_ENDPOINT and the keys; is the server up?")
        return
    took = (time.perf_counter() - began) * 1000
    if found != b"looked at" or stored is None or left is not None:
        yield wrong("store", f"{where} does not give back what was written", "It must be consistent; use another one.")
        return
    yield ok("store", f"{where}: written, read and deleted in {took:.0f} ms")
    yield from _clock("store", stored.modified_at - time.time())


def database(settings: Settings) -> Iterator[Finding]:
    """Opens it, and writes where that changes nothing."""
    kind = sa.make_url(settings.database_url).get_backend_name() if _is_url(settings) else ""
    if kind not in ("sqlite", "postgresql"):
        yield wrong("database", "P2M_DATABASE is no URL of one", "Wanted postgresql://USER@HOST/NAME, or nothing.")
        return
    engine = open_engine(settings)
    try:
        with engine.connect() as connection:
            temporary = sa.Table("p2m_doctor", sa.MetaData(), sa.Column("n", sa.Integer), prefixes=["TEMPORARY"])
            temporary.create(connection)
            connection.execute(sa.insert(temporary).values(n=1))
            if kind == "postgresql":
                now = float(connection.execute(sa.text("select extract(epoch from clock_timestamp())")).scalar_one())
                skew = now - time.time()
            else:
                said = connection.exec_driver_sql("pragma quick_check(1)").scalar_one()
                if said != "ok":
                    yield wrong("database", f"SQLite says: {said}", "Restore it from a backup.")
                    return
                skew = 0.0
            connection.rollback()
    except (sa.exc.SQLAlchemyError, P2MError, OSError) as error:
        cause = str(getattr(error, "orig", None) or error).splitlines()[0]
        yield wrong("database", f"{kind}: {_plain(cause, settings)}", "Check P2M_DATABASE; is the server up?")
        return
    finally:
        engine.dispose()
    yield ok("database", f"{kind}: opened and written")
    yield from _clock("database", skew)


def _is_url(settings: Settings) -> bool:
    try:
        sa.make_url(settings.database_url)
    except sa.exc.ArgumentError:
        return False
    return True


def _plain(text: str, settings: Settings) -> str:
    """`text` without the database's password, should a driver tell it."""
    password = sa.make_url(settings.database_url).password
    return text.replace(str(password), "***") if password else text


async def teacher(settings: Settings) -> list[Finding]:
    """Asks the LLM's endpoint which models it has: that costs nothing."""
    key = settings.openai_api_key.get_secret_value()
    if not settings.openai_base_url and not key:
        if offline_teacher.missing():
            todo = "Set OPENAI_API_KEY or OPENAI_BASE_URL; without, nothing is generated."
            return [warning("teacher", "no LLM is set, and the small one is not installed", todo)]
        return [warning("teacher", "no LLM is set: the small one that ships is poor", "Set OPENAI_API_KEY.")]
    import openai

    where = settings.openai_base_url or "the usual address of OpenAI"
    client = openai.AsyncOpenAI(
        api_key=key or "none", base_url=settings.openai_base_url or None, max_retries=0, timeout=_WITHIN_S
    )
    try:
        async with client:
            names = {model.id async for model in await client.models.list()}
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        return [wrong("teacher", f"{where} refuses the key", "Check OPENAI_API_KEY.")]
    except openai.NotFoundError:
        return [warning("teacher", f"{where} has no list of models", "It may serve all the same: try a small run.")]
    except (openai.OpenAIError, ValueError) as error:
        return [wrong("teacher", f"{where} does not answer ({type(error).__name__})", "Check OPENAI_BASE_URL.")]
    if settings.llm not in names:
        some = ", ".join(sorted(names)[:3]) or "none"
        return [warning("teacher", f"{where} does not list {settings.llm}; it lists {some}", "Set P2M_LLM.")]
    return [ok("teacher", f"{where} has {settings.llm}")]


async def hub(settings: Settings) -> list[Finding]:
    """Whether the hub answers, takes the token where one is set, and what it takes the time to be."""
    if settings.hub_offline:
        return [ok("hub", "switched off (HF_HUB_OFFLINE)")]
    import httpx

    token = settings.hub_token.get_secret_value()
    try:
        async with httpx.AsyncClient(timeout=_WITHIN_S) as client:
            answer = await client.head(settings.hub_url)
            found = [ok("hub", f"{settings.hub_url} answers")]
            if token:
                headers = {"authorization": f"Bearer {token}"}
                asked = await client.get(f"{settings.hub_url}/api/whoami-v2", headers=headers)
                if asked.status_code in (401, 403):
                    found = [wrong("hub", f"{settings.hub_url} refuses the token", "Check HF_TOKEN, or unset it.")]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        todo = "Runs use what is on this machine. HF_HUB_OFFLINE=1 spares the wait."
        return [warning("hub", f"{settings.hub_url} does not answer ({type(error).__name__})", todo)]
    try:
        skew = parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError, TypeError):
        return found
    return [*found, *_clock("hub", skew)]


def _clock(whose: str, skew_s: float) -> Iterator[Finding]:
    if abs(skew_s) > _SKEW_S:
        todo = "Set the clocks (NTP): certificates, take-over and p2m gc go by them."
        yield warning("clock", f"the {whose}'s clock is {skew_s:+.0f} s from this machine's", todo)


async def services(settings: Settings, connect: str) -> list[Finding]:
    """The health and the version of each service whose address is set, and of RunService at `connect`."""
    targets = {name: target for name in SERVICES if (target := getattr(settings, f"{name}_target"))}
    if connect:
        targets["run"] = connect
    return [*await asyncio.gather(*(_service(name, target, settings) for name, target in targets.items()))]


async def _service(name: str, target: str, settings: Settings) -> Finding:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from services.kit.channel import dial, unary, wait_until_serving

    # A server's health knows its own version as a name, and no other: see kit/server.py.
    mine = own_version()
    asked = health_pb2.HealthCheckRequest(service=f"version/{mine}")
    try:
        async with dial(target, settings) as channel:
            await wait_until_serving(channel, _WITHIN_S)
            try:
                await unary(health_pb2_grpc.HealthStub(channel).Check, asked, _WITHIN_S)  # type: ignore[attr-defined]
            except NotFound:
                told = f"{target} is SERVING, and is not of this version, {mine}"
                return warning(name, told, "Run one version everywhere; a service of your own need not have one.")
    except P2MError as error:
        return wrong(name, f"{target}: {error.message}", "Start it, or check the address and the TLS settings.")
    return ok(name, f"{target} is SERVING, version {mine}")
