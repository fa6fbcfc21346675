"""Columns that hold one text in several languages: which is the output.

pair    the instruction's languages, else what the demonstrations look like, else into English
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from services.dataset_retriever.names import Seen
from services.dataset_retriever.task import Asked, language_code, name_words
from services.kit.values import PromptSpec


def pair(
    columns: Sequence[Seen], task: Asked, spec: PromptSpec | None, *, alone: bool = False
) -> tuple[Seen, Seen] | None:
    """Input and output where columns are translations of each other; None where they are not.

    Names such as "en_sentence" and "ja_sentence" are taken for such only where the task says so, or where nothing else
    is an output (`alone`).
    """
    parent, rest, by_code = max(_groups(columns), key=lambda group: len(group[2]), default=("", (), {}))
    if len(by_code) < 2:
        return None
    asked = "translation" in task.wanted or bool({task.to_language, task.from_language} & set(by_code))
    inside = parent.startswith("translation")
    others = [column for column in columns if not column.is_empty and column not in by_code.values()]
    if not inside and not asked and not alone and (rest or parent or others):
        return None
    to_code = task.to_language if task.to_language in by_code else _written(by_code, spec)
    if not to_code:
        to_code = "en" if "en" in by_code and task.from_language != "en" else ""
    if not to_code:
        to_code = next(code for code in reversed(by_code) if code != task.from_language)
    from_code = task.from_language if task.from_language in by_code and task.from_language != to_code else ""
    return by_code[from_code or next(code for code in by_code if code != to_code)], by_code[to_code]


def _groups(columns: Sequence[Seen]) -> list[tuple[str, tuple[str, ...], dict[str, Seen]]]:
    """(the record they stand in, the rest of their names, {language: column}) of columns that differ by a language."""
    found: dict[tuple[str, tuple[str, ...]], dict[str, Seen]] = {}
    for column in columns:
        above, _, leaf = column.name.rpartition(".")
        parent, words = above.rpartition(".")[2].lower(), name_words(leaf)
        if column.kind != "text" or not words:
            continue
        if parent.startswith("translation"):
            group = found.setdefault((parent, ()), {})
            code = language_code(words[0])
            group[leaf if not code or code in group else code] = column
            continue
        place = next((place for place in (-1, 0) if language_code(words[place])), None)
        # Alone these are no languages' names: a number, a "no".
        if (
            place is None
            or (column.is_empty and len(words) > 1)
            or words in (("id",), ("no",), ("is",), ("or",), ("to",), ("so",))
        ):
            continue
        rest = words[:-1] if place == -1 else words[1:]
        found.setdefault((parent, rest), {}).setdefault(language_code(words[place]), column)
    return [(*key, group) for key, group in found.items()]


def _written(by_code: Mapping[str, Seen], spec: PromptSpec | None) -> str:
    """The language whose sample texts the demonstrations' outputs are most like; "" with nothing to compare."""
    shown = _letters(one.output for one in spec.demonstrations) if spec else Counter()
    read = _letters(one.input for one in spec.demonstrations) if spec else Counter()
    likeness = {
        code: _cosine(shown, texts) - _cosine(read, texts)
        for code, column in by_code.items()
        if (texts := _letters(column.texts))
    }
    best = max(likeness, key=lambda code: likeness[code], default="")
    return best if shown and len(likeness) > 1 and likeness[best] > 0 else ""


def _letters(texts: Iterable[str]) -> Counter[str]:
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
