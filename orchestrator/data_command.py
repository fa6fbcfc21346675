"""What `p2m data` does: the rows of a run as JSONL, of a finished one or of one that was stopped.

data         its locked splits, or what it has before there are any; nothing is asked of the LLM
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from p2m.run.v1 import run_pb2

from orchestrator.amounts import count_text
from orchestrator.client import RunClient
from orchestrator.run_data import SPLITS
from orchestrator.session import reached
from orchestrator.terminal import DONE, Terminal
from services.kit.artifacts import Artifacts
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, from_os_error
from services.kit.settings import SERVICES, Settings
from services.kit.values import Artifact
from services.kit.wire import from_message

# Nobody is asked, but without an LLM the small one of the packages would be started.
_NO_LLM = "http://127.0.0.1:9"

PARTS = ("splits", *SPLITS, "generated", "retrieved")


async def data(terminal: Terminal, settings: Settings, name: str, part: str, out: Path | None, connect: str) -> int:
    """Writes the rows of run `name` to `out`, or prints them; `part` is one of PARTS, or "" for the usual one."""
    _check(out)
    async with _client(settings, connect) as client:
        chosen = _chosen(name, await client.data(name), part)
    counts = {one.name: 0 for one in chosen}
    lines = _lines(settings, name, chosen, counts)
    if out is None:
        for line in lines:
            print(line, file=terminal.out)
    else:
        _write(out, lines)
    told = ", ".join(f"{count_text(count)} {of}" for of, count in counts.items())
    unfinished = "" if all(one.complete for one in chosen) else "; its generation is not finished"
    terminal.say(f"{told} rows of run {name}{unfinished}." + (f" They are in {out}" if out else ""))
    return DONE


@asynccontextmanager
async def _client(settings: Settings, connect: str) -> AsyncIterator[RunClient]:
    """RunService at `connect`, else here, beside the generator: only that can read what it wrote before it stopped."""
    if connect:
        async with reached(connect, settings) as client:
            yield client
        return
    from orchestrator.local import hosted

    others = {f"{name}_target": settings.target(name) for name in SERVICES if name != "generator"}
    llm = {} if settings.openai_base_url else {"openai_base_url": _NO_LLM}
    async with (
        hosted(settings.model_copy(update=others | llm)) as stack,
        RunClient(stack.run_target, stack.settings) as client,
    ):
        yield client


def _check(out: Path | None) -> None:
    if out is not None and out.exists():
        raise InvalidArgument("FILE_EXISTS", f"{out} is there already; name another file, or move it away.")


def _chosen(name: str, found: Sequence[run_pb2.RunDataset], part: str) -> list[run_pb2.RunDataset]:
    wanted = part or ("splits" if any(one.name in SPLITS for one in found) else "")
    names = SPLITS if wanted == "splits" else (wanted,)
    chosen = [one for one in found if not wanted or one.name.split("-")[0] in names]
    if not chosen:
        has = ", ".join(one.name for one in found)
        raise FailedPrecondition("NO_SUCH_PART", f"Run {name} has no {' or '.join(names)} rows; it has {has}.")
    return chosen


def _lines(
    settings: Settings, name: str, chosen: Sequence[run_pb2.RunDataset], counts: dict[str, int]
) -> Iterator[str]:
    """A JSON line a row; counts them."""
    artifacts = Artifacts.open(settings, "orchestrator")
    for one in chosen:
        try:
            rows = artifacts.read_rows(from_message(one.dataset, Artifact))
        except NotFound as error:
            raise FailedPrecondition(
                "RESULT_ELSEWHERE",
                f"The rows of run {name} are not in the store that is set here. Set P2M_STORE (and P2M_S3_ENDPOINT "
                "with its keys) as it is at the services.",
            ) from error
        for row in rows:
            counts[one.name] += 1
            split = one.name if one.name in SPLITS else row.split
            plain: dict[str, Any] = {"input": row.input, "output": row.output, "source": row.source, "split": split}
            if row.answers:
                plain["answers"] = [*row.answers]
            yield json.dumps(plain, ensure_ascii=False)


def _write(out: Path, lines: Iterator[str]) -> None:
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        part.replace(out)
    except OSError as error:
        raise from_os_error(error, f"Writing {out}") from error
    finally:
        part.unlink(missing_ok=True)
