"""`p2m gc` on the runs of a real orchestrator: what is used stays, what is not goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest
from p2m.run.v1 import run_pb2

from orchestrator.gc.command import Removal, Wanted
from services.kit.artifacts import Artifacts, Store, open_store
from services.kit.errors import FailedPrecondition, NotFound, P2MError
from services.kit.settings import Settings
from services.kit.values import Artifact
from tests.integration.conftest import PROMPT, IdleRuns, finished
from tests.support.postgres import postgres

OPTIONS = run_pb2.RunOptions(number=4)
AT_ONCE = "0"
DATABASES = pytest.mark.parametrize("idle_settings", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def idle_settings(idle_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Settings]:
    """With the runs in SQLite, unless a test asks for PostgreSQL."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield idle_settings
        return
    with postgres() as server:
        yield idle_settings.model_copy(update={"database": server.url})


def remove(settings: Settings, **wanted: object) -> dict[str, object]:
    """What a sweep without a grace removed."""
    removal = Removal(settings, Wanted(**{"grace": AT_ONCE, **wanted}))  # type: ignore[arg-type]
    try:
        return removal.look() if wanted.get("dry_run") else removal.remove()
    finally:
        removal.close()


async def run_twice(idle_runs: IdleRuns) -> list[run_pb2.Run]:
    """Two finished runs, of other prompts."""
    async with idle_runs() as stack:
        ended = []
        for name in ("one", "two"):
            await stack.client.start(name, f"{PROMPT} {name}", OPTIONS)
            ended.append(await finished(stack.client, name))
    return ended


def whole(store: Store, run: run_pb2.Run) -> None:
    """Every file of the run's folder is there with its digest."""
    artifacts = Artifacts(store, "orchestrator")
    manifest = json.loads(artifacts.read_bytes(Artifact(run.result.uri, run.result.sha256)))
    for file in manifest["files"]:
        artifacts.read_bytes(Artifact(f"{run.result.uri.rpartition('/')[0]}/{file['sha256']}", file["sha256"]))


@DATABASES
async def test_nothing_that_a_run_uses_is_removed(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """After a sweep without a grace every run has its whole result, and its records; only strangers' blobs are gone."""
    runs = await run_twice(idle_runs)
    store = open_store(idle_settings)
    before = set(store.list(""))
    stranger = Artifacts(store, "generator").put_bytes(b"nobody's").uri.removeprefix("p2m://")
    assert remove(idle_settings, dry_run=True)["kinds"] == {"generated": [1, 8]}
    assert store.size(stranger) == 8
    assert remove(idle_settings)["kinds"] == {"generated": [1, 8]}
    assert set(store.list("")) == before
    for run in runs:
        whole(store, run)


async def test_what_is_unnamed_waits_for_its_grace(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """A blob that no run names is written down first, and goes when it was old and unnamed a grace later."""
    await run_twice(idle_runs)
    store = open_store(idle_settings)
    stranger = Artifacts(store, "trainer").put_bytes(b"nobody's").uri.removeprefix("p2m://")
    path = idle_settings.home_folder / "store" / stranger
    os.utime(path, (time.time() - 1e6,) * 2)
    for _ in range(2):
        told = remove(idle_settings, grace="1d")
        assert (told["bytes"], told["waiting_bytes"]) == (0, 8)
    assert path.exists()
    assert remove(idle_settings, grace="0")["bytes"] == 8
    assert not path.exists()


@DATABASES
async def test_a_run_is_removed_with_its_traces(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """`--run` leaves nothing of the run in store or database; the other run is whole; the name can be used anew."""
    one, two = await run_twice(idle_runs)
    store = open_store(idle_settings)
    store.put("generator/journal/one/generate/0/1.jsonl", b"paid")
    assert remove(idle_settings, run="one")["runs"] == 1
    assert not [key for key in store.list("") if "/one/" in key]
    assert store.size(one.result.uri.removeprefix("p2m://")) is None
    whole(store, two)
    async with idle_runs() as stack:
        assert [run.name for run in (await stack.client.list(10))[0]] == ["two"]
        await stack.client.start("one", f"{PROMPT} one", OPTIONS)
        again = await finished(stack.client, "one")
    assert again.state == run_pb2.RUN_STATE_SUCCEEDED, again.error
    assert stack.calls["trainer.TrainRequest"] == 1


async def test_paid_answers_outlive_their_run(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """What the LLM was paid for stays when old runs go, and where --keep-answers says so."""
    await run_twice(idle_runs)
    store = open_store(idle_settings)
    for name in ("one", "two"):
        store.put(f"generator/journal/{name}/generate/0/1.jsonl", b"paid")
    remove(idle_settings, run="one", keep_answers=True)
    assert remove(idle_settings, older_than="0")["runs"] == 1
    remove(idle_settings, run="one", keep_answers=True)
    assert [key for key in store.list("") if "journal" in key] == [
        "generator/journal/one/generate/0/1.jsonl", "generator/journal/two/generate/0/1.jsonl",
    ]  # fmt: skip
    assert not [key for key in store.list("") if "/blobs/" in key]


async def test_retention_is_by_kind(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """What the retention names goes when its time is over, and the run's result stays."""
    one, two = await run_twice(idle_runs)
    store = open_store(idle_settings)
    settings = idle_settings.model_copy(update={"retention": "generated=0,checkpoint=0"})
    store.put("trainer/checkpoints/one/train/0/manifest.json", b"{}")
    assert set(remove(settings)["kinds"]) == {"checkpoint", "generated"}  # type: ignore[call-overload]
    assert not [key for key in store.list("") if key.startswith("generator/blobs/")]
    whole(store, one)
    whole(store, two)


async def test_an_unfinished_runs_things_stay(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """A cancelled run goes on after a sweep where it was; one that waits or is interrupted cannot be removed."""
    from orchestrator.database import open_engine
    from orchestrator.runs import Runs

    engine = open_engine(idle_settings)
    async with idle_runs():
        Runs(engine, "nobody").add("stopped", "0" * 64, PROMPT, OPTIONS)
    store = open_store(idle_settings)
    store.put("trainer/checkpoints/stopped/train/0/manifest.json", b"{}")
    kept = Artifacts(store, "parser").put_bytes(b"named").uri
    record = {"content": "", "response": {"dataset": {"uri": kept}}}
    store.put("parser/results/stopped/parse.json", json.dumps(record).encode())
    before = store.list("")
    settings = idle_settings.model_copy(update={"retention": "run=0,checkpoint=0"})
    assert remove(settings)["bytes"] == 0
    assert store.list("") == before
    with pytest.raises(FailedPrecondition, match="has not ended"):
        remove(settings, run="stopped")
    engine.dispose()


async def test_refuses_what_could_take_others_things(idle_runs: IdleRuns, idle_settings: Settings) -> None:
    """A wrong database, another database's store, a short grace beside a live orchestrator, an unknown run: refused."""
    await run_twice(idle_runs)
    other = idle_settings.model_copy(
        update={"home": idle_settings.home_folder / "other", "store": str(idle_settings.home_folder / "store")}
    )
    with pytest.raises(FailedPrecondition, match="Runs of other databases"):
        remove(other, older_than="0")
    with pytest.raises(NotFound, match="no run 'three'"):
        remove(idle_settings, run="three")
    async with idle_runs():
        with pytest.raises(FailedPrecondition, match="too short"):
            remove(idle_settings)
        assert remove(idle_settings, grace="2h")["bytes"] == 0
    removal = Removal(idle_settings, Wanted())
    with removal_under_way(idle_settings), pytest.raises(P2MError, match="Another p2m gc"):
        removal.remove()
    removal.close()


def removal_under_way(settings: Settings):  # type: ignore[no-untyped-def]
    """Another process's sweep."""
    from orchestrator.database import open_engine
    from orchestrator.gc.sweep import Sweep

    return Sweep(open_store(settings), open_engine(settings), "another", lambda _: None, lambda *_: None).alone()


def test_a_wrong_retention_is_refused(settings: Settings) -> None:
    """A retention that cannot be read is refused with what was wanted."""
    for wrong in ("paid=3d", "run=soon", "run"):
        with pytest.raises(P2MError, match="wanted"):
            Removal(settings.model_copy(update={"retention": wrong}), Wanted())
