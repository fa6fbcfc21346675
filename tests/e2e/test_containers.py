"""The stack in real containers: `make compose-test`. The tests are one story, told in order, on one stack.

images ── up ── a run ── scale out and in ── gc ── a killed orchestrator ── a cancel ── a rolling restart ── down
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from services.kit.settings import SERVICES
from tests.e2e.stack import KEY, Stack, until
from tests.support.models import tiny_t5

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

MEGABYTE = 1_000_000
# What the base of docker-compose.yml takes, unpacked. One that is made here instead brings more.
SLIM_BASE = 130 * MEGABYTE
WITHOUT_TORCH = ("parser", "generator", "model-retriever", "orchestrator")
OURS = (*(name.replace("_", "-") for name in SERVICES), "orchestrator")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, taken down with its volumes at the end."""
    models = tmp_path_factory.mktemp("models")
    tiny_t5(models / "tiny")
    for path in (models, *models.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in (models.parent, models.parent.parent):
        parent.chmod(0o755)
    stack = Stack(models)
    yield stack
    began = time.monotonic()
    stack.down()
    print(f"down: {time.monotonic() - began:.0f} s")


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """Says how long each part took."""
    began = time.monotonic()
    print(f"\n-- {request.node.name}", flush=True)
    yield
    print(f"   took {time.monotonic() - began:.0f} s", flush=True)


def test_images(stack: Stack) -> None:
    """Services without torch are under 400 MB, nothing runs as root, and no layer holds a secret."""
    sizes, base = {}, min(_size(stack, one) for one in _bases(stack))
    for name in (*OURS, "demo"):
        shown = json.loads(stack.docker("image", "inspect", f"p2m-{name}"))[0]
        sizes[name] = (shown["Size"] - base + min(base, SLIM_BASE)) / MEGABYTE
        assert shown["Config"]["User"] == "p2m", name
        assert shown["Config"]["Healthcheck"]["Test"], name
        layers = stack.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", f"p2m-{name}")
        said = layers + json.dumps(shown["Config"]["Env"])
        assert KEY not in said and not _SECRET.search(said), name
    print(f"   the base has {base / MEGABYTE:.0f} MB, counted as {min(base, SLIM_BASE) / MEGABYTE:.0f}")
    print("   MB:", ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    assert {name: size for name, size in sizes.items() if name in WITHOUT_TORCH and size >= 400} == {}


def test_the_bill_of_materials(stack: Stack) -> None:
    """The build target lists what is in an image, in CycloneDX."""
    bill = json.loads(stack.docker("run", "--rm", "--network", "none", "p2m-bill-parser"))
    versions = {one["name"].lower(): one["version"] for one in bill["components"]}
    print(f"   {len(versions)} components in the parser's, grpcio {versions['grpcio']}")
    assert bill["bomFormat"] == "CycloneDX" and "torch" not in versions


def test_the_overlay_for_gpus(stack: Stack) -> None:
    """It gives the trainer and the evaluator a GPU, and Compose takes it. (No container has one here.)"""
    files = ("-f", "docker-compose.yml", "-f", "compose.gpu.yml")
    merged = json.loads(stack.compose(*files, "config", "--format", "json"))
    for name in ("trainer", "evaluator"):
        (device,) = merged["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and "gpu" in device["capabilities"]
        assert merged["services"][name]["read_only"]


def test_up(stack: Stack) -> None:
    """All parts become healthy by one command, none as root, with a root that is read-only and no key in its
    environment; the key is in the files of those who use it and of no other."""
    stack.up("--wait-timeout", "400", timeout_s=450)
    stack.start_driver()
    keyed = set()
    for name in OURS:
        (container,) = stack.containers(name)
        said = stack.docker("exec", container, "sh", "-c", _LOOK).splitlines()
        user, wrote, key = [*said, ""][:3]
        assert (user, wrote) == ("10001", "refused"), name
        keyed |= {name} if key.strip() == KEY else set()
        inspected = stack.docker("inspect", container)
        assert KEY not in inspected and '"Status": "healthy"' in inspected, name
    print("   the LLM's key is at:", ", ".join(sorted(keyed)))
    assert keyed == {"parser", "dataset-retriever", "generator", "model-retriever", "evaluator"}


def test_sigterm(stack: Stack) -> None:
    """The service itself is process 1, takes SIGTERM, and ends by itself with 0."""
    (container,) = stack.containers("parser")
    began = time.monotonic()
    stack.docker("stop", "-t", "15", container)
    took = time.monotonic() - began
    state = json.loads(stack.docker("inspect", container))[0]["State"]
    assert state["ExitCode"] == 0, state
    print(f"   ended with 0 after {took:.1f} s")
    stack.compose("up", "-d", "--no-recreate", "--wait", "parser")


def test_a_run(stack: Stack) -> None:
    """A prompt becomes a measured model through all containers, without a hub."""
    stack.compose(
        "run", "--rm", "--no-deps", "p2m", "run", "/app/examples/normalise-dates/prompt.txt", "--name", "compose",
        "--skip", "generate", "--dataset", "p2m/normalise-dates", "--max-train-time", "40s", "--max-rows", "150",
        "--teacher-rows", "10", "--connect", "orchestrator:50050", "--out", "/tmp/result", timeout_s=500,
    )  # fmt: skip
    shown = json.loads(stack.compose("run", "--rm", "--no-deps", "p2m", "show", "compose", "--connect",
                                     "orchestrator:50050", "--json").splitlines()[-1])  # fmt: skip
    assert shown["state"].lower().endswith("succeeded"), shown
    print("   verdict:", shown.get("verdict"))


def test_scaling(stack: Stack) -> None:
    """With six runs queued, new replicas take work within 30 s; a run's generation spreads over three generators; and
    taking replicas away again, at work, loses nothing."""
    names = [f"queued-{number}" for number in range(6)]
    # 48 jobs, of which one generator takes eight at a time, and each waits for an LLM that takes six seconds.
    stack.drive("start", *names, "--number", "240", "--parts", "8")
    began = time.time()
    stack.compose("up", "-d", "--no-recreate", "--scale", "generator=3", "--scale", "trainer=2", timeout_s=200)
    print(f"   five containers run {time.time() - began:.0f} s after the command")
    at_work: dict[tuple[str, str], float] = {}
    up: dict[tuple[str, str], float] = {}
    with stack.watching(150, "generator", "trainer") as seen:
        for at, replicas in seen:
            for host, address, metrics in replicas:
                up.setdefault((host, address), at)
                if metrics.get("p2m_slots_taken"):
                    at_work.setdefault((host, address), at)
            if len(at_work) == 5:
                break
            if at - began > 140:
                break
    # Nothing is to be trained before the first run has its rows: the wait begins when one of a kind has work.
    first = {host: min((at for (one, _), at in at_work.items() if one == host), default=0.0) for host, _ in up}
    waited = {f"{host} {address}": round(at_work.get((host, address), 9e9) - max(since, first[host]), 1)
              for (host, address), since in up.items()}  # fmt: skip
    print("   seconds from serving, and work, to the first work:", waited)
    assert len(up) == 5 and max(waited.values()) < 30, waited
    (name,) = stack.drive("start", "spread", "--number", "120", "--parts", "6")
    before: dict[str, float] = {}
    with stack.watching(60, "generator") as seen:
        for _, replicas in seen:
            before = {address: metrics.get("p2m_slots_taken", 0) for _, address, metrics in replicas}
            if len([1 for taken in before.values() if taken]) == 3:
                break
    print("   slots taken, by generator:", before)
    assert len([1 for taken in before.values() if taken]) == 3, before
    stack.compose("up", "-d", "--no-recreate", "--scale", "generator=1", "--scale", "trainer=1", timeout_s=200)
    states = stack.drive("wait", *names, name, "--timeout", "400", timeout_s=450)
    print("   after taking them away:", states)
    assert set(states.values()) == {"SUCCEEDED"}, states


def test_gc(stack: Stack) -> None:
    """The administrator's container removes a run from the store and the database; the others stay."""
    admin = ("run", "--rm", "--no-deps", "admin", "gc", "--json")
    told = json.loads(stack.compose(*admin, "--run", "compose").splitlines()[-1])
    print("   removed:", told)
    assert told["runs"] == 1 and told["kinds"]
    client = ("run", "--rm", "--no-deps", "p2m", "list", "--connect", "orchestrator:50050", "--json")
    left = stack.compose(*client)
    assert '"queued-0"' in left and '"compose"' not in left


def test_a_killed_orchestrator(stack: Stack) -> None:
    """Another takes its run up within 60 s, and one alone."""
    stack.compose("up", "-d", "--no-recreate", "--wait", "--scale", "orchestrator=2", timeout_s=200)
    stack.drive("start", "orphan", "--number", "240", "--parts", "2")
    owner, other = _owner(stack, "orphan")
    began = time.time()
    stack.docker("kill", owner)
    until(lambda: _who(stack, other, "orphan") == _place(stack, other), 60, "another orchestrator to take the run up")
    print(f"   taken up after {time.time() - began:.0f} s")
    states = stack.drive("wait", "orphan", "--timeout", "300", timeout_s=350)
    assert states == {"orphan": "SUCCEEDED"}, states
    taken = [metrics.get("p2m_runs_taken_over_total", 0) for _, _, metrics in stack.drive("metrics", "orchestrator")]
    assert sum(taken) == 1, taken
    stack.compose("up", "-d", "--wait", "--scale", "orchestrator=1", timeout_s=200)


def test_a_cancel(stack: Stack) -> None:
    """A cancel ends the trainer's child process within 2 s."""
    (trainer,) = stack.containers("trainer")
    stack.drive("start", "stopped", "--number", "40")
    until(lambda: "services.trainer.train" in stack.docker("top", trainer), 200, "the trainer's child process")
    at = stack.drive("cancel", "stopped")
    until(lambda: "services.kit.worker" not in stack.docker("top", trainer), 10, "the child process to end")
    took = time.time() - at
    print(f"   gone {took:.1f} s after the call, Docker's own answers included")
    assert took < 2


def test_a_rolling_restart(stack: Stack) -> None:
    """Every service is restarted, one after another, under twenty runs at once: none is lost."""
    names = [f"rolling-{number}" for number in range(20)]
    stack.drive("start", *names, "--number", "40")
    began = time.monotonic()
    for name in (*OURS, "object-store", "postgres"):
        stack.compose("restart", "-t", "15", name, timeout_s=120)
        stack.compose("up", "-d", "--no-recreate", "--wait", name, timeout_s=300)
        print(f"   {name} again healthy after {time.monotonic() - began:.0f} s", flush=True)
    states = stack.drive("wait", *names, "--timeout", "700", timeout_s=800)
    print(f"   {len([1 for state in states.values() if state == 'SUCCEEDED'])} of 20 succeeded")
    assert set(states.values()) == {"SUCCEEDED"}, states


def _bases(stack: Stack) -> list[str]:
    """The base images that are here."""
    known = stack.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "python").split()
    assert known, "no base image is here: were the images built on this machine?"
    return known


def _size(stack: Stack, image: str) -> int:
    return int(stack.docker("image", "inspect", "--format", "{{.Size}}", image))


_SECRET = re.compile(r"(password|api_?key|token|secret)=[^\s\"]|://[^/\s]*@", re.IGNORECASE)
_LOOK = """id -u; touch /app/x 2>/dev/null && echo wrote || echo refused
cat /identity/openai_api_key 2>/dev/null || true"""
_OWNER = """
import sqlalchemy as sa, sys
from services.kit.settings import Settings
with sa.create_engine(Settings().database_url).connect() as c:
    print(c.execute(sa.text("select e.place from p2m_runs r join p2m_executors e on e.id = r.executor "
                            "where r.name = :name"), {"name": sys.argv[1]}).scalar() or "")
"""


def _who(stack: Stack, through: str, run: str) -> str:
    """The process namespace of the orchestrator that a run belongs to."""
    return stack.docker("exec", through, "python", "-c", _OWNER, run).strip().partition(" ")[2]


def _place(stack: Stack, container: str) -> str:
    return stack.docker("exec", container, "readlink", "/proc/self/ns/pid").strip()


def _owner(stack: Stack, run: str) -> tuple[str, str]:
    """The container of the orchestrator that a run belongs to, and the other one."""
    first, second = stack.containers("orchestrator")
    return (first, second) if _who(stack, first, run) == _place(stack, first) else (second, first)
