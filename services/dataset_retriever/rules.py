"""Which columns are the input and which one is the output, by names, types, sample rows and the prompt's own words.

    by_rules
    ├── _usual          how much a column's name and type make it an output
    ├── _for_task       what the prompt adds: words, label names, what its demonstrations look like
    └── _inputs         what goes with an output: not what gives it away, not what is of no content

A name's last word says most: an "answer_type" is a type, a "star_rating" a rating. No dataset is known by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dataset_retriever.flatten import Column, as_text, has_text, value_at
from services.dataset_retriever.options import is_options, is_pointer, option_family
from services.dataset_retriever.task import Asked, asked, concepts, language_code, name_words
from services.dataset_retriever.vocabulary import (
    ANSWERS,
    ANY,
    FAMILIES,
    GENERIC,
    INSTRUCTS,
    KEYS,
    LABEL,
    LAST,
    LESS,
    LONG,
    MAIN,
    NEVER_GIVEN,
    NO_CONTENT,
    REWRITTEN,
    SUMMARIES,
    TAG,
    TARGETS,
    TITLES,
    TOLD,
    WHOLE,
)  # fmt: skip
from services.kit.text import normalise
from services.kit.values import PromptSpec

_MOST_INPUTS = 4
_LEAST_ROWS = 5
_MANY = 3

_IMAGE = re.compile(r"\bimage\b")
_ID = re.compile(r"(^|[._ -])(id|ids|idx|uid|guid|uuid|url|uri|hash|sha|ID|URL)$|[a-z](ID|Id)$")
# Hexadecimal numbers and UUIDs, addresses, paths.
_CODE = re.compile(r"[0-9a-fA-F]{8,}|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|https?://\S+|(/[\w.-]+){2,}")
_LISTED = re.compile(r"(?:sequence|list|large_list)<")


@dataclass(frozen=True)
class Choice:
    """Names of columns, none where none fits; why, one sentence."""

    inputs: tuple[str, ...] = ()
    output: str = ""
    why: str = ""


@dataclass(frozen=True)
class _Column:
    """A column as the rules see it."""

    column: Column
    name: str
    words: tuple[str, ...]
    """Of what tells: of "answers.text" answers; of "document.summary.text" summary."""
    path: frozenset[str]
    """All words of all parts."""
    kind: str
    """"text", "label" or "number"."""
    listed: bool
    generic: bool
    """Whether the last part of its name says nothing: "answers.text"."""
    texts: tuple[str, ...] = ()
    """Of the sample rows."""

    @property
    def is_empty(self) -> bool:
        """Whether its name says that it has no content of its own."""
        last = [word for word in self.words if not word.isdigit()][-1:] or [""]
        leaf = name_words(self.name.rpartition(".")[2])
        numbered = bool(set(leaf[:1]) & {"num", "has", "n"})
        if self.name.lower() in ("source", "src"):
            return False
        ids = bool(set(leaf[-1:]) & {"id", "ids", "idx", "url", "urls", "start", "starts"})
        return last[0] in NO_CONTENT or numbered or ids or len(self.words) == 0


def usable_columns(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Those whose type has a text and of which some row holds one; all of such a type where there are no rows."""
    return [
        column
        for column in columns
        if has_text(column.type) and (not rows or any(as_text(value_at(row, column.name), column) for row in rows))
    ]


def by_rules(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]] = (), spec: PromptSpec | None = None
) -> Choice:
    """The columns for a task, or for the dataset's usual one where the prompt does not tell; none where none fits."""
    if any(_IMAGE.search(column.type) for column in columns):
        return Choice(why="Its rows are about images, which a model of text does not see.")
    seen = [_seen(column, rows) for column in usable_columns(columns, rows)]
    if len(seen) < 2:
        return Choice(why="Fewer than two of its columns hold text, so that none can be an output.")
    return _chosen(seen, spec)


def is_known_output(column: Column) -> bool:
    """Whether the column's name and type make it an output."""
    seen = _seen(column, ())
    return _usual([seen])(seen) > 0


def tells_nothing(column: Column, texts: Sequence[str]) -> bool:
    """Whether a column is an id or the like, by its name and its texts: all different, none of them words."""
    if is_pointer(column.name) or is_known_output(column):
        return False
    given = [text for text in texts if text]
    codes = bool(given) and all(_CODE.fullmatch(text) for text in given) and len(set(given)) == len(given)
    return bool(_ID.search(column.name)) or (codes and len(given) >= _LEAST_ROWS)


def _chosen(columns: Sequence[_Column], spec: PromptSpec | None) -> Choice:
    task = asked(spec) if spec else Asked()
    pair = _languages(columns, task, spec)
    if pair:
        return _choice([pair[0]], pair[1], "By their languages")
    usual = _best(columns, _usual(columns))
    if usual is None:
        usual = _only_label(columns) or _by_values(columns) or _asked(columns) or _second_of_two(columns)
    output = _best(columns, _for_task(columns, task, spec)) or usual
    if output is None:
        return Choice(why="By their names none of its columns is an output.")
    inputs = _inputs(columns, output, task, flipped=usual is not None and output is not usual)
    if not inputs:
        return Choice(why=f"By their names none of its columns goes with {output.name} as the input.")
    return _choice(inputs, output, "By the task's words" if output is not usual else "By their names")


def _choice(inputs: Sequence[_Column], output: _Column, how: str) -> Choice:
    names = tuple(column.name for column in inputs)
    return Choice(names, output.name, f"{how}: {', '.join(names)} to {output.name}.")


def _seen(column: Column, rows: Sequence[Mapping[str, Any]]) -> _Column:
    parts = column.name.split(".")
    generic = len(parts) > 1 and parts[-1].lower() in GENERIC
    told = parts[-2] if generic and not _is_container(parts) else parts[-1]
    words = name_words(told)
    if generic:
        words = tuple(word for word in words if word not in GENERIC) or words
    if generic and _is_container(parts):
        words = name_words(parts[-2]) + name_words(parts[-1])
    if len(words) > 1 and words[-1] in ("string", "str"):
        words = words[:-1]
    inner = re.sub(r"(?:sequence|list|large_list)<|>(?:\[\d+\])?$", "", column.type)
    while _LISTED.match(inner):
        inner = re.sub(r"(?:sequence|list|large_list)<|>(?:\[\d+\])?$", "", inner)
    inner = inner.rstrip(">")
    kind = "text" if inner.startswith(("string", "large_string", "translation")) else "number"
    if column.class_names or inner.startswith(("class_label", "bool")):
        kind = "label"
    texts = tuple(as_text(value_at(row, column.name), column)[:2000] for row in rows)
    path = frozenset(word for part in parts for word in name_words(part))
    return _Column(column, column.name, words, path, kind, bool(_LISTED.match(column.type)), generic, texts)


def _is_container(parts: Sequence[str]) -> bool:
    """Whether the last part tells more than the one before it: "graph.sentence"."""
    return parts[-1].lower() == "sentence"


def _usual(columns: Sequence[_Column]) -> Callable[[_Column], float]:
    """How much a column is an output, without a task; 0: not at all."""
    names = [column.name for column in columns]
    options = [column for column in columns if column.kind == "text"
               and any(is_options(column.name, other) for other in names)]  # fmt: skip
    options = [column for column in options if column.listed or column.name.lower().endswith("s")]
    family = option_family(names)
    asks = any(column.path & {"question", "utterance", "prompt", "instruction"} for column in columns)
    tokens = any(column.listed and set(column.words) & {"tokens", "words"} for column in columns)

    def weight(column: _Column) -> float:
        full = " ".join(word for word in column.words if not word.isdigit())
        last = full.rpartition(" ")[2]
        if (
            (options or family)
            and not column.path & {"metadata", "meta"}
            and column.name not in family
            and column not in options
        ):
            if is_pointer(column.name) or full in KEYS:
                return 13.0 - 0.01 * (KEYS.index(full) if full in KEYS else 0)
            if column.kind == "number" and last == "labels" and any(_siblings(column, one) for one in options):
                return 12.0
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
            found -= (1.0 if column.kind == "label" else 0.0) if told else 5.0 if column.kind == "label" else 3.0
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
        if column.is_empty and found < 7.5:
            return 0.0
        return max(0.0, found - sum(LESS.get(word, 0.0) for word in column.path))

    return weight


def _for_task(columns: Sequence[_Column], task: Asked, spec: PromptSpec | None) -> Callable[[_Column], float]:
    """How much a column is the task's output."""
    usual = _usual(columns)
    shown = [one.output for one in spec.demonstrations if one.output.strip()] if spec else []
    wanted = {normalise(text) for text in shown}
    asking = sum(text.rstrip().endswith(("?", "？")) for text in shown) * 2 > len(shown)

    def weight(column: _Column) -> float:
        found = usual(column)
        own = concepts(column.words) | ({"label"} if column.kind == "label" and not column.is_empty else set())
        own |= {"score"} if column.kind == "number" and found else set()
        matched = len(own & task.wanted)
        if matched and (column.kind != "text" or not column.is_empty):
            found += 14 + 2 * matched + 3 * bool(concepts(column.words[-1:]) & task.wanted)
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


def _best(columns: Sequence[_Column], weight: Callable[[_Column], float]) -> _Column | None:
    best = max(columns, key=weight, default=None)
    return best if best is not None and weight(best) > 0 else None


def _only_label(columns: Sequence[_Column]) -> _Column | None:
    """The first label, else the only truth value; of many truth values and figures none is the one output."""
    labels = [column for column in columns if column.kind == "label" and not column.is_empty]
    figures = [column for column in columns if column.kind == "number" and not column.is_empty]
    if labels and (labels[0].column.class_names or labels[0].column.type == "class_label"):
        return labels[0]
    return labels[0] if len(labels) == 1 and len(figures) < _MANY else None


def _asked(columns: Sequence[_Column]) -> _Column | None:
    """The question about a text, where there is no answer."""
    question = next((column for column in columns if column.words == ("question",)), None)
    return question if any(column.path & LONG for column in columns if column is not question) else None


def _by_values(columns: Sequence[_Column]) -> _Column | None:
    """The last column whose short texts come again and again in the sample, where another one's are long."""
    if not columns or len(columns[0].texts) < _LEAST_ROWS:
        return None
    long = [column for column in columns if column.kind == "text" and _length(column) > 3]
    short = [
        column
        for column in columns
        if not column.is_empty and _length(column) <= 3 and 1 < len(set(column.texts)) <= len(column.texts) / 2
    ]
    return short[-1] if long and short else None


def _second_of_two(columns: Sequence[_Column]) -> _Column | None:
    """Of just two columns of content the second, unless one of them is known as something that is read."""
    telling = [column for column in columns if not column.is_empty]
    known = MAIN | TITLES
    if len(telling) != 2 or any(column.kind != "text" or set(column.words) & known for column in telling[1:]):
        return None
    return None if set(telling[0].words) & TITLES else telling[1]


def _languages(columns: Sequence[_Column], task: Asked, spec: PromptSpec | None) -> tuple[_Column, _Column] | None:
    """Input and output where columns hold one text in several languages; None where they do not."""
    by_code: dict[str, list[_Column]] = {}
    for column in columns:
        words = name_words(column.name.rpartition(".")[2])
        parent = column.name.rpartition(".")[0].rpartition(".")[2].lower()
        code = language_code(words[-1]) if words else ""
        alone = len(words) == 1
        if code and (parent.startswith("translation") or (alone and words[0] not in ("id", "no")) or len(words) > 1):
            by_code.setdefault(code, []).append(column)
        elif parent.startswith("translation") and column.kind == "text":
            by_code.setdefault(column.name, []).append(column)
    others = [c for c in columns if not c.is_empty and all(c not in found for found in by_code.values())]
    whole = all(len(name_words(one.name.rpartition(".")[2])) == 1 for found in by_code.values() for one in found)
    if len(by_code) < 2 or (
        others and whole and not any("." in one.name for found in by_code.values() for one in found)
    ):
        return None
    if not whole and not (task.to_language in by_code and "translation" in task.wanted):
        return None
    to_code = task.to_language if task.to_language in by_code else _written(by_code, spec)
    if not to_code:
        to_code = "en" if "en" in by_code and task.from_language != "en" else ""
    if not to_code:
        to_code = next(code for code in reversed(by_code) if code != task.from_language)
    output = by_code[to_code][0]
    rest = [code for code in by_code if code != to_code]
    code = task.from_language if task.from_language in rest else rest[0]
    return max(by_code[code], key=lambda one: len(set(one.words) & set(output.words))), output


def _written(by_code: Mapping[str, Sequence[_Column]], spec: PromptSpec | None) -> str:
    """The language whose sample texts the demonstrations' outputs are most like; "" with nothing to compare."""
    shown = _letters(one.output for one in spec.demonstrations) if spec else Counter()
    read = _letters(one.input for one in spec.demonstrations) if spec else Counter()
    likeness = {
        code: _cosine(shown, texts) - _cosine(read, texts)
        for code, found in by_code.items()
        if (texts := _letters(found[0].texts))
    }
    best = max(likeness, key=lambda code: likeness[code], default="")
    return best if shown and len(likeness) > 1 and likeness[best] > 0 else ""


def _inputs(columns: Sequence[_Column], output: _Column, task: Asked, *, flipped: bool) -> list[_Column]:
    """What the output is to be told from, in the dataset's order."""
    names = [column.name for column in columns]
    options = [column for column in columns if is_options(column.name, output.name) and column.kind == "text"]
    options = [column for column in options if column.listed or column.name.lower().endswith("s")]
    options = [column for column in options if _siblings(column, output)] or options
    family = option_family(names)
    is_key = bool((options or family) and output.name not in family and _usual(columns)(output) >= 12)
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
    tokens = [column for column in content if set(column.words) & {"tokens", "words"} and _beside(column, output)]
    if tokens and _is_tag(output):
        return tokens[:1]
    apart = [column for column in content if not _siblings(column, output)]
    content = apart if any(not column.words[-1:] or column.words[-1] not in TITLES for column in apart) else content
    if flipped:
        told = [column for column in content if concepts(column.words) & task.given and not _gives_away(column, output)]
        before = _inputs_of(content, output, is_key=is_key)
        if told and output.kind == "text" and output in _mains(columns):
            return told[:_MOST_INPUTS]
        return (before or [column for column in content if column is not output])[:_MOST_INPUTS] + chosen
    return sorted([*_inputs_of(content, output, is_key=is_key)[:_MOST_INPUTS], *chosen], key=columns.index)


def _inputs_of(content: Sequence[_Column], output: _Column, *, is_key: bool) -> list[_Column]:
    rest = [column for column in content if not _gives_away(column, output)]
    answers = bool(set(output.words) & ANSWERS)
    exact = [column for column in rest if column.name.lower() in ("input", "inputs", "source", "src")]
    if exact:
        return [column for column in rest if column in exact or set(column.words) & INSTRUCTS]
    rest = _without_twins(rest)
    main = [column for column in rest if _is_main(column) or (output.kind != "text" and _is_judged(column))]
    titles = [column for column in rest if column.words and column.words[-1] in TITLES and column not in main]
    asks = any(column.path & {"question", "questions", "query"} for column in main)
    if (output.kind != "text" and not is_key) or output.words[-1:] == ("text",) or (answers and not asks):
        main = [column for column in rest if column in main or column in titles]
    alike = [column for column in main if _language(column) and _language(column) == _language(output)]
    return alike or main or [column for column in rest if column not in titles][:2] or titles


def _mains(columns: Sequence[_Column]) -> list[_Column]:
    return [column for column in columns if _is_main(column) or set(column.words) & TITLES or column.kind == "text"]


def _is_main(column: _Column) -> bool:
    return bool(set(column.words) & MAIN)


def _is_judged(column: _Column) -> bool:
    """Whether a label may be about it: an answer, a simplification."""
    return any(set(column.words) & family for family in FAMILIES)


def _is_tag(column: _Column) -> bool:
    return column.listed and (column.kind == "label" or bool(set(column.words) & {"tags", "upos", "xpos", "lemmas"}))


def _gives_away(column: _Column, output: _Column) -> bool:
    """Whether a column is another form of the output, or says why it is right."""
    words, wanted = set(column.words), set(output.words)
    if words & NEVER_GIVEN and not words & NEVER_GIVEN & wanted:
        return True
    if words & NEVER_GIVEN and words & wanted & NEVER_GIVEN:
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


def _without_twins(columns: Sequence[_Column]) -> list[_Column]:
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
    return kept


def _beside(one: _Column, other: _Column) -> bool:
    return one.name.rpartition(".")[0] == other.name.rpartition(".")[0]


def _siblings(one: _Column, other: _Column) -> bool:
    return "." in one.name and one.name.rpartition(".")[0] == other.name.rpartition(".")[0]


def _language(column: _Column) -> str:
    return language_code(column.words[-1]) if len(column.words) > 1 and len(column.words[-1]) == 2 else ""


def _length(column: _Column) -> float:
    """Words of the middle sample text."""
    lengths = sorted(len(text.split()) for text in column.texts if text)
    return lengths[len(lengths) // 2] if lengths else 0


def _letters(texts: Any) -> Counter[str]:
    """Runs of three letters: what tells languages apart."""
    found: Counter[str] = Counter()
    for text in texts:
        padded = f" {text[:500].lower()} "
        found.update(padded[i : i + 3] for i in range(len(padded) - 2))
    return found


def _cosine(one: Counter[str], other: Counter[str]) -> float:
    product = sum(count * other[run] for run, count in one.items())
    size = (sum(count**2 for count in one.values()) * sum(count**2 for count in other.values())) ** 0.5
    return product / size if size else 0.0
