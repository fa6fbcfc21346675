"""What is kept how long, by kind: P2M_RETENTION, such as "checkpoint=7d,generated=90d,run=1y".

    run          an ended run's row, records and artifacts, from its end on
    answers      paid answers of the LLM, once their run is gone; as long as there is the run, they are kept with it
    checkpoint   a training's slots, from the end of its run on; the same command then trains from the start
    generated, retrieved, trained, measured, result
                 what the generator, the dataset retriever, the trainer (splits, models), the evaluator and the
                 orchestrator (a run's folder, given rows) stored for a run that SUCCEEDED, from its end on

What is not named is kept for ever, but for checkpoints. Durations are numbers with s, m, h, d, w or y.
"""

from __future__ import annotations

import math
import re

from services.kit.errors import InvalidArgument

FOREVER = math.inf
KINDS = ("run", "answers", "checkpoint", "generated", "retrieved", "trained", "measured", "result")
DEFAULTS = dict.fromkeys(KINDS, FOREVER) | {"checkpoint": 7 * 86400.0}

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
_OF_SERVICE = {
    "generator": "generated", "dataset_retriever": "retrieved", "trainer": "trained", "evaluator": "measured",
    "run": "result", "orchestrator": "result", "catalogue": "catalogue",
}  # fmt: skip
_OF_FOLDER = {"results": "record", "attempts": "record", "journal": "answers", "checkpoints": "checkpoint"}


def parse(text: str) -> dict[str, float]:
    """Seconds by kind. InvalidArgument for an unknown kind or a wrong duration."""
    found = dict(DEFAULTS)
    for part in (part.strip() for part in text.split(",") if part.strip()):
        kind, _, lasts = part.partition("=")
        if kind.strip() not in KINDS:
            raise InvalidArgument(
                "BAD_RETENTION", f"P2M_RETENTION has {part[:60]!r}; wanted KIND=TIME, KIND one of: {', '.join(KINDS)}."
            )
        found[kind.strip()] = duration(lasts)
    return found


def duration(text: str) -> float:
    """Seconds of "90d", "12h" or "forever". InvalidArgument for anything else."""
    text = text.strip().lower()
    if text in ("forever", "never"):
        return FOREVER
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdwy])", text)
    if text == "0" or not match:
        if text == "0":
            return 0.0
        raise InvalidArgument("BAD_DURATION", f"{text[:40]!r} is no time; wanted such as 90d, 12h or forever.")
    return float(match[1]) * _UNITS[match[2]]


def kind_of(key: str) -> str:
    """What an object of the store is; "other" for what is never removed."""
    service, _, rest = key.partition("/")
    folder, _, below = rest.partition("/")
    if not below:
        return "other"
    if folder == "blobs":
        return _OF_SERVICE.get(service, "blob")
    return _OF_FOLDER.get(folder, "other")


def run_of(key: str) -> str:
    """The run that a record, an answer or a checkpoint belongs to; "" of anything else."""
    parts = key.split("/")
    if len(parts) < 3 or parts[1] not in _OF_FOLDER:
        return ""
    return parts[2] if len(parts) > 3 else parts[2].removesuffix(".json")
