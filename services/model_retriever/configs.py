"""The best candidates' config.json, from the hub: whether the trainer could use them, before anything is planned.

    Configs(settings).confirmed(found, k)     what was found, without those of which the config says that they don't fit

A config is a few kilobytes; weights are not touched. Asked are the first few, together, for a few seconds in all; what
does not come in time, or comes broken, says nothing. A hub that could not be reached, or was late, is left alone for a
minute. Verdicts stay in memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from catalogue import architectures
from services.kit import locations
from services.kit.errors import FailedPrecondition, NotFound, P2MError, Unauthenticated
from services.kit.settings import Settings
from services.model_retriever.limits import NO_ARCHITECTURE
from services.model_retriever.search import MOST_EXCLUDED, ExcludedModel, Found, ModelCandidate

log = logging.getLogger(__name__)

MOST = 20
"""Candidates that are looked at."""
SPARE = 5
"""Candidates to search for beyond those that are wanted."""
PATIENCE_S = 4.0
AT_ONCE = 8
_REQUEST_S = 3.0
_LEFT_ALONE_S = 60.0
_LONGEST = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """`architecture`: how the trainer would use the model; `refusal`: why it could not, one sentence."""

    architecture: str = ""
    refusal: str = ""


class Configs:
    """Asks a hub, and remembers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._known: dict[str, Verdict] = {}
        self._not_before = 0.0

    async def confirmed(self, found: Found, k: int) -> Found:
        """The `k` best of `found`, which may hold some to spare, with their architectures where the hub told them."""
        unsure = {one.id: one.location for one in found.candidates if NO_ARCHITECTURE in one.flags}
        learnt = await self._verdicts(unsure)
        refused = tuple(ExcludedModel(id, verdict.refusal) for id, verdict in learnt.items() if verdict.refusal)
        left_out = {one.id for one in refused}
        kept = tuple(
            _named(one, learnt[one.id].architecture) if one.id in learnt else one
            for one in found.candidates
            if one.id not in left_out
        )[:k]
        return replace(found, candidates=kept, excluded=(*refused, *found.excluded)[:MOST_EXCLUDED])

    async def _verdicts(self, wanted: Mapping[str, str]) -> dict[str, Verdict]:
        """Of hub models, id to location, what their configs say; ids of which nothing was learnt are left out."""
        asked = {id: location for id, location in list(wanted.items())[:MOST] if location.startswith("hub:")}
        unknown = [location for location in dict.fromkeys(asked.values()) if location not in self._known]
        if unknown and not self._settings.hub_offline and time.monotonic() >= self._not_before:
            await self._ask(unknown)
        return {id: self._known[location] for id, location in asked.items() if location in self._known}

    async def _ask(self, unknown: Sequence[str]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(location: str) -> None:
            async with gate:
                if time.monotonic() < self._not_before:
                    return
                try:
                    self._known[location] = await asyncio.to_thread(_look, location, self._settings)
                except (FailedPrecondition, NotFound, Unauthenticated) as error:
                    self._known[location] = Verdict(refusal=error.message)
                except (P2MError, OSError, ValueError) as error:
                    log.info("the config of %s was not to be had: %s", location, error)
                    if not isinstance(error, ValueError):
                        self._not_before = time.monotonic() + _LEFT_ALONE_S

        tasks = [asyncio.create_task(one(location)) for location in unknown]
        _, late = await asyncio.wait(tasks, timeout=PATIENCE_S)
        if late:
            self._not_before = time.monotonic() + _LEFT_ALONE_S
        for task in late:
            task.cancel()


def _named(candidate: ModelCandidate, architecture: str) -> ModelCandidate:
    flags = tuple(flag for flag in candidate.flags if flag != NO_ARCHITECTURE)
    return replace(candidate, architecture=architecture, flags=flags)


def _look(location: str, settings: Settings) -> Verdict:
    config = _config(location, settings)
    kind = architectures.kind(config)
    if kind:
        return Verdict(architecture=kind)
    what = architectures.unfit(config)
    return Verdict(refusal=f"Its architecture is not supported: {what}; wanted {', '.join(architectures.KINDS)}.")


def _config(location: str, settings: Settings) -> dict[str, Any]:
    """One plain request: the hub client's download tries again for half a minute where nobody answers."""
    from huggingface_hub import get_session, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    repo, _, revision = locations.split(location)[1].partition("@")
    url = hf_hub_url(repo, "config.json", revision=revision or None, endpoint=settings.hub_url)
    try:
        response = get_session().get(url, headers=build_hf_headers(), timeout=_REQUEST_S, follow_redirects=True)
        hf_raise_for_status(response)
    except EntryNotFoundError as error:
        raise NotFound("NO_CONFIG", f"{repo} has no config.json: it is no model for transformers.") from error
    except Exception as error:
        raise locations.hub_error(error, repo, settings) from error
    config = json.loads(response.content[:_LONGEST])
    if not isinstance(config, dict):
        raise ValueError(f"{repo}: its config.json is no object")
    return config
