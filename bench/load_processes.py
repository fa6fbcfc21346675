"""A whole installation as processes on loopback, and what memory each of them has: what `bench.load` measures.

async with installation(settings, orchestrators=1) as parts: ...    {"parser": pid, ..., "orchestrator": pid}
async with serving(["orchestrator.serve"], settings, port, log): ...     one part alone
async with Memory(parts) as memory: ...                             looked at every second
memory.growth(since)                                                per part, what it gained since then

teacher (scripted, its own process) ◄── six services ◄── orchestrator(s) ◄── the one who measures
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import psutil

from services.kit.channel import dial, wait_until_serving
from services.kit.settings import SERVICES, Settings

ROOT = Path(__file__).resolve().parent.parent
_READY_WITHIN_S = 180.0
_END_WITHIN_S = 30.0
_MB = 1 << 20


@asynccontextmanager
async def installation(
    settings: Settings, log: Path, orchestrators: int = 1, light: bool = False
) -> AsyncIterator[Parts]:
    """Six services and some orchestrators, a process each, SERVING; all write their logs to `log`.

    `light`: the children of trainer and evaluator do without torch (`load_light`).

    `settings` need a store and a database that several processes may share (SQLite where there is one orchestrator).
    """
    async with AsyncExitStack() as stack:
        file = stack.enter_context(log.open("ab"))
        ports = free_ports(len(SERVICES) + orchestrators)
        targets = {name: f"127.0.0.1:{port}" for name, port in zip(SERVICES, ports, strict=False)}
        settings = settings.model_copy(update={f"{name}_target": target for name, target in targets.items()})
        run_ports = ports[len(SERVICES) :]
        commands = {name: _command(name, light) for name in SERVICES}
        commands |= {f"orchestrator-{n}": ["orchestrator.serve"] for n in range(1, orchestrators + 1)}
        processes = {}
        for (name, command), port in zip(commands.items(), ports, strict=True):
            process = await _started(command, settings, port, file)
            stack.push_async_callback(_end, process)
            processes[name] = process.pid
        for port in ports:
            await _until_serving(port, settings)
        yield Parts(settings, [f"127.0.0.1:{port}" for port in run_ports], processes)


@asynccontextmanager
async def serving(
    command: list[str], settings: Settings, port: int, log: BinaryIO
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One part as a process, SERVING on this port of loopback."""
    process = await _started(command, settings, port, log)
    try:
        await _until_serving(port, settings)
        yield process
    finally:
        await _end(process)


async def _started(command: list[str], settings: Settings, port: int, log: BinaryIO) -> asyncio.subprocess.Process:
    environment = _environment(settings) | {"P2M_PORT": str(port)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, cwd=ROOT, env=environment, stdout=log, stderr=log
    )


async def _until_serving(port: int, settings: Settings) -> None:
    channel = dial(f"127.0.0.1:{port}", settings)
    await wait_until_serving(channel, _READY_WITHIN_S)
    await channel.close()


@dataclass(frozen=True)
class Parts:
    """What runs: its settings, where RunService is, and the process of each part."""

    settings: Settings
    run_targets: list[str]
    pids: dict[str, int]


@asynccontextmanager
async def scripted_teacher(latency_s: float) -> AsyncIterator[str]:
    """The URL of a scripted teacher in a process of its own; each answer takes `latency_s`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.teacher", "--latency", str(latency_s),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield (await asyncio.wait_for(process.stdout.readline(), _READY_WITHIN_S)).decode().strip()
    finally:
        await _end(process)


@dataclass(frozen=True)
class Growth:
    """What one part's memory did. Memory is that which only this process has (USS), its children's not counted."""

    mb: float
    """The median over the time looked at."""
    peak_mb: float
    """The most, over the whole time."""
    growth_mb: float
    """The median of all slopes between two samples (Theil and Sen), times the time looked at."""
    at_most_mb: float
    """The upper end of the slope's 95 % interval, times the same."""
    open_files: int
    """At the last look."""
    cpu_s: float
    """Seconds of a core that the process itself took, its start included."""
    children_cpu_s: float
    """The same of its children that have ended."""


@dataclass(frozen=True)
class _Sample:
    at: float
    uss_mb: float
    open_files: int
    cpu_s: float
    children_cpu_s: float


class Memory:
    """Looks at each process every `every_s` seconds. `children_mb` is the most that all their children had at once."""

    def __init__(self, pids: Mapping[str, int], every_s: float = 1.0) -> None:
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._every_s = every_s
        self._samples: dict[str, list[_Sample]] = {name: [] for name in pids}
        self.children_mb = 0.0

    async def __aenter__(self) -> Memory:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(self._every_s)

    def _look(self) -> None:
        children = 0.0
        for name, process in self._processes.items():
            with process.oneshot():
                uss_mb = process.memory_full_info().uss / _MB
                cpu = process.cpu_times()
                sample = _Sample(
                    time.monotonic(), uss_mb, process.num_fds(), cpu.user + cpu.system,
                    cpu.children_user + cpu.children_system,
                )  # fmt: skip
                self._samples[name].append(sample)
            children += sum(_rss_mb(child) for child in process.children(recursive=True))
        self.children_mb = max(self.children_mb, children)

    def growth(self, since: float) -> dict[str, Growth]:
        """Each part's memory from `since` (of time.monotonic) to the last look."""
        return {name: _growth(samples, since) for name, samples in self._samples.items()}

    def plain(self) -> list[dict[str, Any]]:
        """All samples, for a chart."""
        return [{"part": name} | asdict(sample) for name, samples in self._samples.items() for sample in samples]


def _growth(samples: list[_Sample], since: float) -> Growth:
    from scipy.stats import theilslopes

    late = [sample for sample in samples if sample.at >= since]
    if len(late) < 3:
        raise ValueError(f"{len(late)} samples in the time looked at; wanted 3 or more")
    sizes, times = [sample.uss_mb for sample in late], [sample.at for sample in late]
    length = times[-1] - times[0]
    slope = theilslopes(sizes, times, 0.95)
    peak = max(sample.uss_mb for sample in samples)
    last = late[-1]
    return Growth(
        statistics.median(sizes), peak, slope.slope * length, slope.high_slope * length, last.open_files, last.cpu_s,
        last.children_cpu_s,
    )  # fmt: skip


def _rss_mb(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / _MB
    except psutil.Error:
        return 0.0


def _command(name: str, light: bool) -> list[str]:
    """The module that serves a service, and its arguments."""
    if light and name in ("trainer", "evaluator"):
        return ["bench.load_light", name]
    return [f"services.{name}"]


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as a process of its own reads them, and what the images set; nothing of this process's own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("P2M_", "OPENAI_", "DEEPL_", "HF_"))}
    given = {f"P2M_{key.upper()}": str(value) for key, value in settings.reveal().items() if value not in (None, "")}
    return kept | given | {"MALLOC_ARENA_MAX": "2"}


def free_ports(number: int) -> list[int]:
    """Ports that nobody has; all are held until all are found, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, and SIGKILL where it does not end."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), _END_WITHIN_S)
        except TimeoutError:
            process.kill()
            await process.wait()
