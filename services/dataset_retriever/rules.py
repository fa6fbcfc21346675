"""Which columns are the input and which one is the output, by names, types, sample rows and the prompt's own words.

    by_rules
    ├── languages       columns that are translations of each other
    ├── _usual          how much a column's name and type make it an output
    ├── _for_task       what the prompt adds: words, label names, what its demonstrations look like
    └── inputs          what goes with an output: not what gives it away, not what is of no content

A name's last word says most: an "answer_type" is a type, a "star_rating" a rating. No dataset is known by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever import languages
from services.dataset_retriever.flatten import Column, as_text, has_text, value_at
from services.dataset_retriever.inputs import inputs_of, turned_round
from services.dataset_retriever.names import Seen, is_main, length, seen_as, siblings
from services.dataset_retriever.options import is_options, is_pointer, option_family
from services.dataset_retriever.task import Asked, asked, concepts, name_words
from services.dataset_retriever.vocabulary import (
    ANY,
    KEYS,
    LABEL,
    LAST,
    LESS,
    LONG,
    MAIN,
    SORTS,
    SUMMARIES,
    TAG,
    TITLES,
    TOLD,
    VOTED,
    WHOLE,
)
from services.kit.text import normalise
from services.kit.values import PromptSpec

_LEAST_ROWS = 5
_MANY = 3
# Columns beyond these are not looked at: no dataset of a task has as many.
_MOST_COLUMNS = 300
_STEM = 5
# A weight that only the key to a question's options has.
_KEY = 12.0

_IMAGE = re.compile(r"\bimage\b")
_ID = re.compile(r"(^|[._ -])(id|ids|idx|uid|guid|uuid|url|uri|hash|sha|ID|URL)$|[a-z](ID|Id)$")
# Hexadecimal numbers and UUIDs, addresses, paths.
_CODE = re.compile(r"[0-9a-fA-F]{8,}|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|https?://\S+|(/[\w.-]+){2,}")


@dataclass(frozen=True)
class Choice:
    """Names of columns, none where none fits; why, one sentence."""

    inputs: tuple[str, ...] = ()
    output: str = ""
    why: str = ""


def by_rules(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]] = (), spec: PromptSpec | None = None
) -> Choice:
    """The columns for a task, or for the dataset's usual one where the prompt does not tell; none where none fits."""
    if any(_IMAGE.search(column.type) for column in columns):
        return Choice(why="Its rows are about images, which a model of text does not see.")
    seen = [seen_as(column, rows) for column in usable_columns(columns[:_MOST_COLUMNS], rows)]
    if len(seen) < 2:
        return Choice(why="Fewer than two of its columns hold text, so that none can be an output.")
    return _chosen(seen, spec)


def usable_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those whose type has a text and of which some row holds one; all of such a type where there are no rows."""
    return [
        column
        for column in columns
        if has_text(column.type) and (not rows or any(as_text(value_at(row, column.name), column) for row in rows))
    ]


def is_known_output(column: Column) -> bool:
    """Whether the column's name and type make it an output."""
    seen = seen_as(column, ())
    return _usual([seen])(seen) > 0


def tells_nothing(column: Column, texts: Sequence[str]) -> bool:
    """Whether a column is an id or the like, by its name and its texts: all different, none of them words."""
    if is_pointer(column.name) or is_known_output(column):
        return False
    given = [text for text in texts if text]
    codes = bool(given) and all(_CODE.fullmatch(text) for text in given) and len(set(given)) == len(given)
    return bool(_ID.search(column.name)) or (codes and len(given) >= _LEAST_ROWS)


def _chosen(columns: Sequence[Seen], spec: PromptSpec | None) -> Choice:
    task = asked(spec) if spec else Asked()
    pair = languages.pair(columns, task, spec)
    if pair:
        return _choice([pair[0]], pair[1], "By their languages")
    weight = _usual(columns)
    usual = _best(columns, weight)
    if usual is None:
        found = (find(columns) for find in (_only_label, _by_values, _asked, _sorted_by, _second_of_two))
        usual = next((column for column in found if column is not None), None)
    output = _best(columns, _for_task(columns, task, spec)) or usual
    if output is None:
        pair = languages.pair(columns, task, spec, alone=True)
        if pair:
            return _choice([pair[0]], pair[1], "By their languages")
        return Choice(why="By their names none of its columns is an output.")
    read = inputs_of(columns, usual or output, is_key=weight(usual or output) >= _KEY)
    if output is usual:
        output = _instead(usual, columns, read, task)
    inputs = inputs_of(columns, output, is_key=weight(output) >= _KEY)
    if usual is not None and output is not usual and (output in read or weight(output) == 0):
        inputs = turned_round(inputs, columns, output, task)
    if not inputs:
        return Choice(why=f"By their names none of its columns goes with {output.name} as the input.")
    return _choice(inputs, output, "By the task's words" if output is not usual else "By their names")


def _choice(inputs: Sequence[Seen], output: Seen, how: str) -> Choice:
    names = tuple(column.name for column in inputs)
    return Choice(names, output.name, f"{how}: {', '.join(names)} to {output.name}.")


def _usual(columns: Sequence[Seen]) -> Callable[[Seen], float]:
    """How much a column is an output, without a task; 0: not at all."""
    names = [column.name for column in columns]
    options = [column for column in columns if column.kind == "text"
               and any(is_options(column.name, other) for other in names)]  # fmt: skip
    options = [column for column in options if column.listed or column.name.lower().endswith("s")]
    family = option_family(names)
    asks = any(column.path & {"question", "utterance", "prompt", "instruction"} for column in columns)
    tokens = any(column.listed and set(column.words) & {"tokens", "words"} for column in columns)

    def weight(column: Seen) -> float:
        full = " ".join(word for word in column.words if not word.isdigit())
        last = full.rpartition(" ")[2]
        if (
            (options or family)
            and not column.path & {"metadata", "meta"}
            and column.name not in family
            and column not in options
        ):
            if is_pointer(column.name) or full in KEYS:
                return _KEY + 1 - 0.01 * (KEYS.index(full) if full in KEYS else 0)
            if column.kind == "number" and last == "labels" and any(siblings(column, one) for one in options):
                return _KEY
        if column.name in family or column in options:
            return 0.0
        if column.listed and column.kind != "number" and tokens and not set(column.words) & {"tokens", "words"}:
            found = max((TAG.get(word, 0.0) for word in column.words), default=0.0)
            if found:
                return found
        found = WHOLE.get(full, 0.0) or LAST.get(last, 0.0)
        found = max(found, *(ANY.get(word, 0.0) for word in column.words), 0.0)
        if "." in column.name and not column.generic:
            told = set(name_words(column.name.rpartition(".")[0])) & TOLD
            found -= (3.0 if column.kind == "label" else 0.0) if told else 5.0
        if full == "score" and any(one.path & VOTED for one in columns):
            found = 0.0
        if last == "annotations" and not column.generic:
            found = 0.0
        if last in ("answer", "answers") and asks and found < 8:
            found += 0.6
        if set(column.words) & SUMMARIES and not any(one.path & LONG for one in columns if one is not column):
            found = 0.0
        if column.kind == "label" or (column.listed and column.kind == "text"):
            found = max(found, LABEL.get(last, 0.0))
        if full == "query" and asks:
            found = 6.0
        if column.is_empty and found < 7.5 and not (column.kind == "label" and LABEL.get(last, 0.0) >= 4):
            return 0.0
        return max(0.0, found - sum(LESS.get(word, 0.0) for word in column.path))

    return weight


def _for_task(columns: Sequence[Seen], task: Asked, spec: PromptSpec | None) -> Callable[[Seen], float]:
    """How much a column is the task's output."""
    usual = _usual(columns)
    shown = [one.output for one in spec.demonstrations if one.output.strip()] if spec else []
    wanted = {normalise(text) for text in shown}
    asking = sum(text.rstrip().endswith(("?", "？")) for text in shown) * 2 > len(shown)

    def weight(column: Seen) -> float:
        found = usual(column)
        own = concepts(column.words) | ({"label"} if column.kind == "label" and not column.is_empty else set())
        own |= {"score"} if column.kind == "number" and found else set()
        matched = len(own & task.wanted) or _begins(own, task.wanted)
        if matched and (column.kind != "text" or not column.is_empty):
            head = [word for word in column.words if not word.isdigit()][-1:]
            found += 14 + 2 * matched + 3 * bool(concepts(head) & task.wanted) + is_main(column)
        if own & task.given and task.wanted:
            found -= 4
        names = {normalise(name) for name in column.column.class_names}
        if wanted and names and wanted <= names:
            found += 20
        asked_back = [text for text in column.texts if text]
        if asked_back and shown:
            questions = sum(text.endswith(("?", "？")) for text in asked_back) * 2 > len(asked_back)
            found += 12 if questions and asking else -6 if questions else 0
        return found

    return weight


def _begins(own: frozenset[str] | set[str], wanted: frozenset[str]) -> bool:
    """Whether a word of one begins a longer one of the other: triple, tripleset."""
    return any(len(word) >= _STEM and other.startswith(word) for word in wanted for other in own)


def _instead(usual: Seen, columns: Sequence[Seen], read: Sequence[Seen], task: Asked) -> Seen:
    """The output where the task turns the usual one into something else: not that one, but what is usually read."""
    own = concepts(usual.words)
    if usual.kind != "text" or not own & task.turned or own & task.wanted:
        return usual
    other = [column for column in read if column.kind == "text"]
    return next((column for column in other if not concepts(column.words) & task.given), (other or [usual])[0])


def _best(columns: Sequence[Seen], weight: Callable[[Seen], float]) -> Seen | None:
    best = max(columns, key=weight, default=None)
    return best if best is not None and weight(best) > 0 else None


def _only_label(columns: Sequence[Seen]) -> Seen | None:
    """The first label, else the only truth value; of many truth values and figures none is the one output."""
    labels = [column for column in columns if column.kind == "label" and not column.is_empty]
    figures = [column for column in columns if column.kind == "number" and not column.is_empty]
    if labels and (labels[0].column.class_names or labels[0].column.type == "class_label"):
        return labels[0]
    return labels[0] if len(labels) == 1 and len(figures) < _MANY else None


def _asked(columns: Sequence[Seen]) -> Seen | None:
    """The question about a text, where there is no answer."""
    question = next((column for column in columns if column.words == ("question",)), None)
    return question if any(column.path & LONG for column in columns if column is not question) else None


def _sorted_by(columns: Sequence[Seen]) -> Seen | None:
    """What a text is sorted by, its category or topic."""
    texts = [column for column in columns if column.kind == "text" and not column.is_empty]
    sorts = [column for column in columns if column.words[-1:] and column.words[-1] in SORTS]
    return sorts[0] if sorts and any(column not in sorts for column in texts) else None


def _by_values(columns: Sequence[Seen]) -> Seen | None:
    """The last column whose short texts come again and again in the sample, where another one's are long."""
    if not columns or len(columns[0].texts) < _LEAST_ROWS:
        return None
    long = [column for column in columns if column.kind == "text" and length(column) > 3]
    short = [
        column
        for column in columns
        if not column.is_empty and length(column) <= 3 and 1 < len(set(column.texts)) <= len(column.texts) / 2
    ]
    return short[-1] if long and short else None


def _second_of_two(columns: Sequence[Seen]) -> Seen | None:
    """Of just two columns of content the second, unless one of them is known as something that is read."""
    telling = [column for column in columns if not column.is_empty]
    known = MAIN | TITLES
    if len(telling) != 2 or any(column.kind != "text" or set(column.words) & known for column in telling[1:]):
        return None
    return None if set(telling[0].words) & TITLES else telling[1]
