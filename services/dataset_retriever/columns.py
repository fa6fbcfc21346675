"""Which columns are the input and which one is the output: the LLM's proposal, checked, else the rules'.

    propose      the LLM, where there is one, then the rules
    by_rules     by names and types alone

A column is usable where its type has a text and some sample row has one. The output is one column, the input one or
more others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever.flatten import Column, as_text, has_text, value_at
from services.kit.errors import BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable
from services.kit.llm import Ask, Message, Schema, Session
from services.kit.values import PromptSpec

_MOST_INPUTS = 4
# Most telling first. A name counts whole, or as the last part of a dotted one.
_OUTPUTS = (
    "output", "target", "label_text", "label", "labels", "answers.text", "answer", "answers", "correct_answer",
    "summary", "highlights", "intent", "category", "class", "sentiment", "coarse_label", "response", "completion",
    "query", "sql", "corrections", "translation.en", "human_reference", "score", "rating", "stars",
)  # fmt: skip
_INPUTS = (
    "input", "inputs", "source", "text", "sentence", "question", "premise", "hypothesis", "sentence1", "sentence2",
    "context", "passage", "document", "article", "dialogue", "content", "review", "sms", "title", "prompt",
    "instruction", "utterance", "concepts", "tokens", "meaning_representation", "support", "options", "choices.text",
)  # fmt: skip
_NO_CONTENT = re.compile(r"(^|[._])(id|ids|idx|index|guid|uid|uuid|hash|url|uri|link|path|filename|file|date|timestamp|"
                         r"answer_start|start|end|split|phase)$|_ids?$|[a-z]ID$")  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """The proposal: names of columns, none where none fits; why, one sentence."""

    inputs: tuple[str, ...] = ()
    output: str = ""
    why: str = ""


async def propose(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], spec: PromptSpec, session: Session | None
) -> Columns:
    """The columns for a task, from names, types and sample rows."""
    usable = usable_columns(columns, rows)
    if len(usable) < 2:
        return Columns((), "", "Fewer than two of its columns hold text, so that none can be an output.")
    if session is None:
        return by_rules(usable)
    try:
        value = await session.ask(Ask("columns", _messages(usable, rows, spec), _schema(usable), 0.0, 300))
    except (BudgetExhausted, FailedPrecondition, InvalidArgument, Unavailable) as error:
        return _with_note(by_rules(usable), f"The LLM was not asked to the end: {error.message}")
    return _checked(value, usable)


def usable_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those whose type has a text and of which some row holds one; all of such a type where there are no rows."""
    return [
        column
        for column in columns
        if has_text(column.type) and (not rows or any(as_text(value_at(row, column.name), column) for row in rows))
    ]


def by_rules(usable: Sequence[Column]) -> Columns:
    """The columns by their names: the most telling output, the usual inputs, else the longest that is left."""
    telling = [column for column in usable if not _NO_CONTENT.search(column.name)]
    output = _first(telling, _OUTPUTS) or next((column for column in telling if column.class_names), None)
    if output is None and len(telling) == 2:
        output = telling[1]
    rest = [column for column in telling if column is not output and not column.class_names]
    inputs = [column for column in rest if _known(column, _INPUTS)] or rest[:1]
    if output is None or not inputs:
        return Columns((), "", "By their names none of its columns is an output.")
    if any(column.name == "input" for column in inputs):
        inputs = [column for column in inputs if column.name == "input"]
    names = tuple(column.name for column in inputs[:_MOST_INPUTS])
    return Columns(names, output.name, f"By their names: {', '.join(names)} to {output.name}.")


def _checked(value: Mapping[str, Any], usable: Sequence[Column]) -> Columns:
    """The LLM's proposal where it holds against the dataset; else the rules'."""
    known = {column.name for column in usable}
    inputs, output = tuple(dict.fromkeys(value["input_columns"])), value["output_column"]
    if not inputs and output not in known:
        return Columns((), "", " ".join(value["why"].split())[:300] or "The LLM says that no columns fit.")
    if output not in known or not inputs or not known.issuperset(inputs) or output in inputs:
        named = f"{', '.join(inputs) or 'none'} to {output or 'none'}"
        return _with_note(by_rules(usable), f"The LLM named columns that cannot be used ({named:.200}).")
    return Columns(inputs, output, " ".join(value["why"].split())[:300] or "The LLM chose them.")


def _with_note(columns: Columns, note: str) -> Columns:
    return Columns(columns.inputs, columns.output, f"{columns.why} {note}")


def _first(columns: Sequence[Column], names: Sequence[str]) -> Column | None:
    for name in names:
        for column in columns:
            if column.name.lower() == name or column.name.lower().endswith(f".{name}"):
                return column
    return None


def _known(column: Column, names: Sequence[str]) -> bool:
    return any(column.name.lower() == name or column.name.lower().endswith(f".{name}") for name in names)


def _schema(usable: Sequence[Column]) -> Schema:
    names = [column.name for column in usable]
    return Schema(
        "columns",
        {
            "type": "object",
            "properties": {
                "input_columns": {"type": "array", "items": {"enum": names}},
                "output_column": {"enum": [*names, ""]},
                "why": {"type": "string"},
            },
            "required": ["input_columns", "output_column", "why"],
            "additionalProperties": False,
        },
    )


def _messages(usable: Sequence[Column], rows: Sequence[Mapping[str, Any]], spec: PromptSpec) -> tuple[Message, ...]:
    listed = "\n".join(f"- {column.name}: {column.type}" for column in usable)
    samples = "\n".join(
        json.dumps({one.name: as_text(value_at(row, one.name), one)[:200] for one in usable}, ensure_ascii=False)
        for row in rows[:3]
    )
    examples = "\n".join(f"Input: {one.input[:300]}\nOutput: {one.output[:300]}" for one in spec.demonstrations[:3])
    system = (
        "A dataset is to train a model for a task. Name its one output column, which holds what the model should "
        "answer, and the input columns, which hold what the model needs in order to answer. Leave out ids and whatever "
        'gives the answer away. Where no column can be the output, answer with no input columns and the output "".'
    )
    content = f"Task:\n{spec.instruction[:2000]}\n\n{examples}\n\nColumns:\n{listed}\n\nSample rows:\n{samples}"
    return (Message(role="system", content=system), Message(role="user", content=content))
