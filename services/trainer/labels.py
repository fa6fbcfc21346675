"""Whether a task's outputs are a small closed set of labels, and which.

    choose(head, spec, rows, validation) ── Choice(shares, why)
    └── named_beside(instruction, labels)     labels that the instruction lists among those the rows have
    fitting(choice, ...)                      what that means for validation, and what a person should know

A model with a head for labels can answer with nothing else, so a set counts as closed only where a new output is
unlikely: by Good (1953) the chance that the next output is a new one is about the share of those seen once. What
repeats its own input is copied, not chosen: few names in the rows do not mean that there are few.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.kit.errors import FailedPrecondition, InvalidArgument
from services.kit.values import PromptSpec, Row

HEADS = ("auto", "text", "labels")
MOST_LABELS = 150
LEAST_ROWS_A_LABEL = 5
# An output that comes less often is rare; and the most that rare, or new, outputs may be of all rows.
LEAST_SEEN, MOST_RARE = 3, 0.02
MOST_COPIED = 0.5
_MOST_LABEL_WORDS = 5


@dataclass(frozen=True)
class Choice:
    """The labels in their order in the model; none for a model that writes text. `why`: one sentence, or ""."""

    shares: dict[str, float] = field(default_factory=dict)
    """Each label and its share of the training rows."""
    why: str = ""


def choose(head: str, spec: PromptSpec, rows: Sequence[Row], validation: Sequence[Row]) -> Choice:
    """What to train. `head`: "auto" (or "") decides by the rows, "text" and "labels" force it.

    Raises InvalidArgument for another head, FailedPrecondition (TOO_FEW_LABELS) where labels are forced on one output.
    """
    if head and head not in HEADS:
        raise InvalidArgument("BAD_HEAD", f"The head is {head[:40]!r}; wanted {', '.join(HEADS)}.", field="head")
    if head == "text":
        return Choice()
    outputs = [row.output.strip() for row in rows]
    seen = Counter(outputs)
    if head == "labels" and len(seen) < 2:
        raise FailedPrecondition("TOO_FEW_LABELS", "All training rows have the same output; wanted two labels or more.")
    if head != "labels" and (reason := _open(seen, rows, validation)):
        return Choice(why=f"The model writes text. {reason}" if len(seen) <= MOST_LABELS else "")
    named = named_beside(spec.own_instruction, tuple(seen))
    shown = {one.output.strip() for one in spec.demonstrations} - {""}
    labels = tuple(sorted({*seen, *named, *shown}))
    never = sorted(set(labels) - seen.keys())
    why = f"The outputs are {len(labels)} labels: the model has a head that picks one, and writes no text."
    if never:
        why += f" No training row has {', '.join(repr(label[:40]) for label in never[:5])}."
    return Choice({label: seen[label] / seen.total() for label in labels}, why)


def known(labels: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The rows whose output is one of the labels."""
    return [row for row in rows if row.output.strip() in labels]


def fitting(
    choice: Choice, head: str, labels: Sequence[str], validation: list[Row]
) -> tuple[list[Row], tuple[str, ...]]:
    """The validation rows that the model can be measured on, and the notes. `labels`: those that the model has.

    Raises FailedPrecondition (NO_LABEL_HEAD) where labels were forced on a model that only writes text.
    """
    if not labels:
        if head == "labels":
            raise FailedPrecondition(
                "NO_LABEL_HEAD", "Only an encoder (BERT, RoBERTa) can have a head for labels; take one, or --head text."
            )
        return validation, (choice.why,) if choice.why and not choice.shares else ()
    kept = known(labels, validation)
    left_out = len(validation) - len(kept)
    notes = [choice.why]
    if left_out:
        notes.append(f"{left_out} of {len(validation)} validation rows have no label that the model knows; left out.")
    return kept, tuple(notes)


def named_beside(instruction: str, labels: Sequence[str]) -> tuple[str, ...]:
    """What the instruction lists together with labels: "neutral" in "positive, negative or neutral".

    A list counts where at least two of its items, and half of them, are labels. Its first and last item may have the
    rest of the sentence about them: these are new labels only where they are no longer than the known ones.
    """
    folded = {label.casefold() for label in labels}
    longest = max((len(label.split()) for label in labels), default=0)
    found: dict[str, None] = {}
    for part in re.split(r"[()\[\]{}:;.?!\n]+", instruction):
        items = [_bare(item) for item in re.split(r",|/|\||\b(?:and|or|und|oder|et|ou|y|o)\b", part)]
        items = [item for item in items if item]
        edges = {0, len(items) - 1}
        hits = {
            place
            for place, item in enumerate(items)
            if item.casefold() in folded or (place in edges and _holds_a_label(item.casefold(), folded))
        }
        if len(hits) < 2 or 2 * len(hits) < len(items):
            continue
        for place, item in enumerate(items):
            if place not in hits and len(item.split()) <= (longest if place in edges else _MOST_LABEL_WORDS):
                found[item] = None
    return tuple(found)


def _open(seen: Counter[str], rows: Sequence[Row], validation: Sequence[Row]) -> str:
    """Why the outputs are no closed set, one sentence; "" where they are one."""
    total = seen.total()
    if not 2 <= len(seen) <= MOST_LABELS:
        return f"There are {len(seen):,} different outputs; a head for labels takes 2 to {MOST_LABELS}."
    if total < LEAST_ROWS_A_LABEL * len(seen):
        return f"There are {len(seen)} different outputs in {total} rows: too few of each."
    rare = sum(count for count in seen.values() if count < LEAST_SEEN)
    if rare > MOST_RARE * total:
        return f"{100 * rare / total:.0f} % of the outputs come once or twice: there are likely to be others."
    new = len(validation) - len(known(tuple(seen), validation))
    if new > MOST_RARE * len(validation):
        return f"{100 * new / len(validation):.0f} % of the outputs in validation are in no training row."
    copied = sum(row.output.strip().casefold() in row.input.casefold() for row in rows)
    if copied > MOST_COPIED * total:
        return f"{100 * copied / total:.0f} % of the outputs stand in their own input: they are copied from there."
    return ""


def _bare(item: str) -> str:
    return item.strip(" \t\"'`«»“”„‘’-*•–—")


def _holds_a_label(item: str, labels: set[str]) -> bool:
    return any(re.search(rf"(?<!\w){re.escape(label)}(?!\w)", item) for label in labels)
