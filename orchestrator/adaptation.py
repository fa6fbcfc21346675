"""Whether a found dataset's rows are rewritten to the task's format, and what of that is told.

decide      before: rewrite or not, and why
told        after: what a person reads
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2m.dataset_retriever.v1 import dataset_retriever_pb2 as pb
from p2m.run.v1 import run_pb2

from services.kit.settings import Settings

# So many rows are rewritten where nobody asked for it; where somebody did, the service's own number.
BY_ITSELF = 200


@dataclass(frozen=True)
class Decision:
    """Whether to rewrite, at most how many rows (0: the service's own number), why or why not: a clause."""

    adapt: bool
    max_rows: int = 0
    why: str = ""


def decide(options: run_pb2.RunOptions, settings: Settings, look: pb.InspectResponse, *, proposed: bool) -> Decision:
    """The decision. `proposed`: the columns are those that the fit was judged by, not a person's others."""
    part = proposed and look.fit == pb.FIT_PART
    if options.HasField("adapt") and not options.adapt:
        return Decision(False, why="it was switched off (--no-adapt)")
    if not options.adapt and not part:
        whole = proposed and look.fit == pb.FIT_WHOLE
        return Decision(False, why="its rows fit as they are" if whole else "nothing tells that its rows do not fit")
    if not is_capable(settings):
        return Decision(False, why="the LLM is too small to rewrite rows (P2M_RERANK is off)")
    if options.adapt:
        return Decision(True, why="you asked for it (--adapt)")
    return Decision(True, BY_ITSELF, "its rows fit only in part")


def is_capable(settings: Settings) -> bool:
    """Whether the LLM can rewrite rows: one that is too weak to rank datasets is too weak for that."""
    return settings.rerank


def told(look: pb.InspectResponse, decision: Decision, adapted: Mapping[str, Any] | None) -> list[str]:
    """Sentences: that the dataset fits in part, and what was done about it; none where it fits and nothing was."""
    found = [f"It fits the task only in part: {look.fit_why}"] if look.fit_why else []
    if adapted is not None:
        left_out = sum(adapted["dropped"].values())
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in adapted["dropped"].items())
        found.append(
            f"Its rows were rewritten by the LLM, since {decision.why}: {adapted['rows']:,} were kept"
            + (f", {left_out:,} were left out ({reasons})." if left_out else ".")
        )
        if not adapted["complete"]:
            found.append("Rewriting ended before its last row; raise --budget for more.")
        found.append(f"The plan was: {' '.join(_sentence(step) for step in adapted['plan']['steps'])}")
    elif look.fit_why or decision.adapt:
        found.append(f"The dataset was not adapted because {_sentence(decision.why)}")
    return found


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
