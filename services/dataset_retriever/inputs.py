"""What an output is told from: the columns that are read, not those that give it away or have no content."""

from __future__ import annotations

import re
from collections.abc import Sequence

from services.dataset_retriever.names import Seen, beside, is_main, is_tag, language_of, siblings
from services.dataset_retriever.options import is_options, option_family
from services.dataset_retriever.task import Asked, concepts
from services.dataset_retriever.vocabulary import (
    ANSWERS,
    FAMILIES,
    GENERIC,
    INSTRUCTS,
    NEVER_GIVEN,
    REWRITTEN,
    TARGETS,
    TITLES,
)

_MOST_INPUTS = 4
_LEAST_ROWS = 5


def inputs_of(columns: Sequence[Seen], output: Seen, *, is_key: bool) -> list[Seen]:
    """The input columns, in the dataset's order. `is_key`: the output means one of the options."""
    names = [column.name for column in columns]
    options = [column for column in columns if is_options(column.name, output.name) and column.kind == "text"]
    options = [column for column in options if column.listed or column.name.lower().endswith("s")]
    options = [column for column in options if siblings(column, output)] or options
    family = option_family(names)
    chosen = [column for column in columns if is_key and (column in options or (not options and column.name in family))]
    pool = [
        column
        for column in columns
        if column is not output
        and column.kind == "text"
        and column.name not in family
        and not (column.listed and is_options(column.name, output.name))
        and column not in options
        and (column.name.lower() not in ("source", "src") or set(output.words) & TARGETS)
    ]
    content = [column for column in pool if not column.is_empty]
    tokens = [column for column in content if set(column.words) & {"tokens", "words"} and beside(column, output)]
    if tokens and is_tag(output):
        return tokens[:1]
    apart = [column for column in content if not siblings(column, output)]
    content = apart if any(not column.words[-1:] or column.words[-1] not in TITLES for column in apart) else content
    return sorted([*_read(content, output, is_key=is_key)[:_MOST_INPUTS], *chosen], key=columns.index)


def turned_round(inputs: Sequence[Seen], columns: Sequence[Seen], output: Seen, task: Asked) -> list[Seen]:
    """The input columns where the output is one that is usually read: those that the task says are given."""
    content = [column for column in columns if column is not output and column.kind == "text" and not column.is_empty]
    said = {column.name: concepts((column.path - GENERIC) | {*column.words}) for column in content}
    told = [column for column in content if said[column.name] & task.given and not _gives_away(column, output)]
    return (told or [*inputs] or content)[:_MOST_INPUTS]


def _read(content: Sequence[Seen], output: Seen, *, is_key: bool) -> list[Seen]:
    rest = [column for column in content if not _gives_away(column, output)]
    answers = bool(set(output.words) & ANSWERS)
    exact = [column for column in rest if column.name.lower() in ("input", "inputs", "source", "src")]
    if exact:
        return [column for column in rest if column in exact or set(column.words) & INSTRUCTS]
    rest = _without_twins(rest)
    main = [column for column in rest if is_main(column) or (output.kind != "text" and _is_judged(column))]
    titles = [column for column in rest if column.words and column.words[-1] in TITLES and column not in main]
    asks = any(column.path & {"question", "questions", "query"} for column in main)
    if (output.kind != "text" and not is_key) or output.words[-1:] == ("text",) or (answers and not asks):
        main = [column for column in rest if column in main or column in titles]
    alike = [column for column in main if language_of(column) and language_of(column) == language_of(output)]
    return alike or main or [column for column in rest if column not in titles][:2] or titles


def _is_judged(column: Seen) -> bool:
    """Whether a label may be about it: an answer, a simplification."""
    return any(set(column.words) & family for family in FAMILIES)


def _gives_away(column: Seen, output: Seen) -> bool:
    """Whether a column is another form of the output, or says why it is right."""
    words, wanted = set(column.words), set(output.words)
    if words & NEVER_GIVEN:
        return True
    heads = (set(column.words[-1:]), set(output.words[-1:]))
    if output.kind == "text" and any(
        (heads[0] & family and heads[1] & family) or (family is REWRITTEN and words & family and wanted & family)
        for family in FAMILIES
    ):
        return True
    told = [(given, text) for given, text in zip(column.texts, output.texts, strict=False) if given and text]
    whole = sum(len(text.split()) > 3 and text in given for given, text in told)
    same = sum(given == text for given, text in told)
    return len(told) >= _LEAST_ROWS and max(whole, same) >= 0.8 * len(told)


def _without_twins(columns: Sequence[Seen]) -> list[Seen]:
    """Without the tokens of a text that is there whole, and without the parts of one: ctx_a and ctx_b beside ctx."""
    names = {column.name for column in columns}
    parents = {column.name.rpartition(".")[0] for column in columns if not set(column.words) & {"tokens", "toks"}}
    kept = []
    for column in columns:
        parent, _, leaf = column.name.rpartition(".")
        stem = re.sub(r"[_-]?(toks|tokens|string_tokens|[ab])(_\w+)?$", "", column.name)
        if leaf in ("tokens", "toks", "token") and (parent in parents or len(columns) > 1):
            continue
        if stem != column.name and (stem in names or f"{stem}_string" in names or "tok" in column.name):
            continue
        if set(column.words) & {"whole", "parse"} or column.name.endswith("original_string"):
            continue
        if any(re.fullmatch(re.escape(name) + r"_[a-z]+", column.name, re.IGNORECASE) for name in names):
            continue
        kept.append(column)
    return kept or [*columns]
