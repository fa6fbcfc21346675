"""`p2m doctor`: everything is looked at, whatever one look found; then the table, or one JSON line."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict

from pydantic import SecretStr

from orchestrator.display import clean
from orchestrator.doctor import here, reached
from orchestrator.doctor.finding import OK, WRONG, Finding, wrong
from orchestrator.terminal import DONE, FAILED, Terminal
from services.kit.settings import Settings

_MARKS = {OK: "ok", "warning": "warning", WRONG: "WRONG"}


async def doctor(terminal: Terminal, settings: Settings, connect: str, as_json: bool) -> int:
    """Looks, tells, and returns FAILED where something is wrong."""
    found = await look(settings, connect)
    if as_json:
        print(json.dumps([asdict(one) for one in found]), file=terminal.out)
    else:
        wide = max(len(one.what) for one in found)
        for one in found:
            print(f"{one.what:<{wide}}  {_MARKS[one.state]:<7}  {clean(one.told)}", file=terminal.out)
            if one.todo:
                print(f"{'':<{wide}}  {'':<7}  → {one.todo}", file=terminal.out)
        wrongs = sum(one.state == WRONG for one in found)
        terminal.say(f"{wrongs} wrong." if wrongs else "A run can begin.")
    return FAILED if any(one.state == WRONG for one in found) else DONE


async def look(settings: Settings, connect: str) -> list[Finding]:
    """Everything that was found, in the table's order; no secret is in it."""
    looks: list[Callable[[], Iterable[Finding]]] = [
        lambda: here.variables(os.environ),
        lambda: here.kept(settings),
        lambda: here.secrets(os.environ.get("P2M_SECRETS", "")),
        lambda: here.tls(settings),
        lambda: here.ports(settings) if not connect else (),
        lambda: here.disk(settings),
        here.memory,
        lambda: here.packages() if not connect else (),
    ]
    # With --connect the runs, the store and the keys are there, unless they are set here too.
    if not connect or settings.store:
        looks.append(lambda: reached.store(settings))
    if not connect or settings.database:
        looks.append(lambda: reached.database(settings))
    asked = [reached.hub(settings), reached.services(settings, connect)]
    if not connect or settings.openai_base_url or settings.openai_api_key.get_secret_value():
        asked.append(reached.teacher(settings))
    local = [asyncio.to_thread(_listed, one) for one in looks]
    parts = await asyncio.gather(*local, *asked)
    return [_without_secrets(one, settings) for part in parts for one in part]


def _listed(look_at: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        return [*look_at()]
    except OSError as error:
        return [wrong("machine", f"{error.filename or ''}: {error.strerror or error}", "Mend it and look again.")]


def _without_secrets(one: Finding, settings: Settings) -> Finding:
    """The finding as it may be told, whatever a library has put into its error."""
    words = {key: str(value) for key, value in asdict(one).items()}
    for _, value in settings:
        secret = value.get_secret_value() if isinstance(value, SecretStr) else ""
        if len(secret) > 3:
            words = {key: word.replace(secret, "***") for key, word in words.items()}
    return Finding(**words)
