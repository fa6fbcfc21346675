"""Schemas of public datasets, and the columns that a careful person would choose for each dataset's usual task.

    SCHEMAS       for the dataset's usual task
    FOR_A_TASK    for a task that a prompt names, which may turn the usual mapping round
    right         whether a choice is one of those that a person would make

A line of schemas.txt is `name | columns | inputs -> output`, with ` | task` for the latter. A column without a type is
a string; a label's names stand in parentheses. Of the inputs all are needed, one of those with "/" between them, those
in parentheses are welcome. Any of the outputs will do. "-" alone: none of the columns is an output of a task, and that
is the right answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from services.dataset_retriever.flatten import Column, columns_of


@dataclass(frozen=True)
class Known:
    """One schema and what a person would choose. `outputs` holds "" where none is right."""

    name: str
    columns: tuple[Column, ...]
    needed: tuple[frozenset[str], ...]
    welcome: frozenset[str]
    outputs: frozenset[str]
    task: str = ""

    def right(self, inputs: tuple[str, ...], output: str) -> bool:
        """Whether the choice is one of those that a person would make."""
        if output not in self.outputs:
            return False
        if not output:
            return True
        allowed = self.welcome.union(*self.needed)
        return output not in inputs and allowed.issuperset(inputs) and all(set(inputs) & one for one in self.needed)


def _known(line: str) -> Known:
    name, listed, mapping, *task = (part.strip() for part in line.split(" | "))
    features, class_names = {}, {}
    for column in listed.split("; "):
        key, _, kind = column.partition(": ")
        labels = re.search(r"\(([^)]*)\)$", kind)
        features[key] = kind[: labels.start()] if labels else kind or "string"
        if labels:
            class_names[key] = labels[1].split()
    inputs, _, outputs = mapping.partition(" -> ") if " -> " in mapping else ("", "", "-")
    needed, _, welcome = inputs.rstrip(")").partition(" (+ ")
    return Known(
        name,
        columns_of(features, class_names),
        tuple(frozenset(one.split(" / ")) for one in needed.split(" + ") if one),
        frozenset(welcome.split(" + ")) - {""},
        frozenset("" if one == "-" else one for one in outputs.split(" / ")),
        *task,
    )


_ALL = tuple(
    _known(line)
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("# ")
)
SCHEMAS = tuple(known for known in _ALL if not known.task)
FOR_A_TASK = tuple(known for known in _ALL if known.task)
