"""Which of a dataset's configurations fits a task.

    best_config     by what the catalogue tells of them: names, columns, label names, splits
    best_named      by their names alone

Most datasets have one. Where there are several they are tasks ("sst2", "cola"), languages ("de", "xquad.ar",
"de-en"), versions ("1.0.0", "3.0.0") or sizes ("small", "all"): the task's words and languages decide, then what can be
trained on.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from services.dataset_retriever.flatten import columns_of
from services.dataset_retriever.rules import by_rules
from services.dataset_retriever.task import Asked, asked, concepts, language_code, name_words
from services.dataset_retriever.vocabulary import LANGUAGES
from services.kit.text import normalise
from services.kit.values import PromptSpec

_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)$")
# Of these words one is rather left, the other rather taken, where nothing else tells.
_LESS, _MORE = (frozenset(words.split()) for words in (
    "raw unlabeled unlabelled unfiltered unsupervised nocontext noisy debug mini tiny small xs s test dev auxiliary ax "
    "index corpus rare low gold corrupt shuffled ablation no",
    "default all full main plain labeled labelled complete simplified",
))  # fmt: skip
# Words that begin alike are of one stem: irony, ironic.
_STEM = 4


def best_config(configs: Sequence[Mapping[str, Any]], spec: PromptSpec) -> str:
    """The name of the configuration that fits best; "" where there are none."""
    names = [str(config["name"]) for config in configs]
    scores = _by_name(names, spec)
    for config, name in zip(configs, names, strict=True):
        scores[name] += _by_content(config, spec)
    return _best(names, scores)


def said(spec: PromptSpec) -> str:
    """What `best_named` goes by, as one text: the instruction, and the prompt's language where it is not English."""
    name = next((name for name, code in LANGUAGES.items() if code == spec.language and code != "en"), "")
    return f"{spec.instruction} Language: {name}." if name else spec.instruction


def best_named(names: Sequence[str], spec: PromptSpec) -> str:
    """The name that fits best; "" where there are none."""
    return _best(names, _by_name(names, spec))


def _best(names: Sequence[str], scores: Mapping[str, float]) -> str:
    return max(names, key=lambda name: scores[name], default="")


def _by_name(names: Sequence[str], spec: PromptSpec) -> dict[str, float]:
    """How much each name is the task's."""
    task = asked(spec)
    told = concepts(re.findall(r"[^\W_]+", spec.instruction.lower()))
    often = Counter(word for name in names for word in set(name_words(name)))
    newest = max((_version(name) for name in names), default=())
    return {name: _fit(name, names, often, told, task, spec, newest) for name in names}


def _fit(
    name: str, names: Sequence[str], often: Mapping[str, int], told: frozenset[str], task: Asked, spec: PromptSpec,
    newest: tuple[int, ...],
) -> float:  # fmt: skip
    words = name_words(name)
    telling = {word for word in words if len(word) > 2 and often[word] < len(names)}
    said = set(re.findall(r"[^\W_]+", spec.instruction.lower()))
    score = sum(3.0 if word in said else 1.5 for word in telling if _is_told(word, said, told))
    score += _by_language(words, names, task, spec)
    score += 0.4 * bool(_MORE & set(words)) - 0.6 * bool(_LESS & set(words))
    return score + 0.3 * (_version(name) == newest != ())


def _is_told(word: str, said: set[str], told: frozenset[str]) -> bool:
    stem = word[: max(_STEM, len(word) - 2)]
    return bool(concepts([word]) & told) or (len(word) > _STEM and any(one.startswith(stem) for one in said))


def _by_language(words: Sequence[str], names: Sequence[str], task: Asked, spec: PromptSpec) -> float:
    """How much the languages in a name are the task's; 0 where most names hold none."""
    held = [{code for word in name_words(name) if (code := language_code(word))} for name in names]
    if sum(map(bool, held)) < max(2, len(names) / 2):
        return 0.0
    codes = {code for word in words if (code := language_code(word))}
    wanted = {task.to_language, task.from_language} - {""} or {spec.language or "en"}
    other = len(codes - wanted)
    return 5.0 * len(codes & wanted) / len(wanted) - (0.5 * other if codes & wanted else 1.0 * bool(codes))


def _by_content(config: Mapping[str, Any], spec: PromptSpec) -> float:
    """How much columns, label names and splits are the task's."""
    features, class_names = config.get("features") or {}, config.get("class_names") or {}
    splits = config.get("splits") or {}
    score = 1.5 * ("train" in splits) if splits else 0.0
    score += 0.05 * math.log10(1 + sum(rows or 0 for rows in splits.values()))
    if not features:
        return score
    choice = by_rules(columns_of(features, class_names), (), spec)
    score += 3.0 * bool(choice.output)
    kind = features.get(choice.output, "")
    wanted = asked(spec).wanted
    score += 2.0 * ("score" in wanted and kind.startswith("float")) + 2.0 * (
        "label" in wanted and kind == "class_label"
    )
    shown = {normalise(one.output) for one in spec.demonstrations if one.output.strip()}
    labels = {normalise(str(label)) for label in class_names.get(choice.output, ())}
    told = concepts(re.findall(r"[^\W_]+", spec.instruction.lower()))
    named = sum(bool(concepts([word]) & told) for label in labels for word in label.split())
    score += 8.0 * bool(shown and labels and shown <= labels) + min(3.0, 1.0 * named)
    own = {word for column in (*choice.inputs, choice.output) for word in concepts(name_words(column))}
    return score + 0.5 * len(own & told)


def _version(name: str) -> tuple[int, ...]:
    found = _VERSION.search(name)
    return tuple(map(int, found[1].split("."))) if found else ()
