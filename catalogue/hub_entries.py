"""What the hub lists of a model or dataset, as an entry of a catalogue (see `read`).

    EXPAND                what is asked of the listing, so that one page tells all
    entry(kind, item)     the entry; None of what neither reads nor writes text
    with_card(entry, card)    its description from the repository's own card

People write what is listed: any part may be missing, of another type, or hostile. What does not look as it should is
not known; texts are cut, their control characters dropped, and are never more than texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from catalogue import architectures, languages

EXPAND = {
    "models": (
        "downloads", "tags", "pipeline_tag", "library_name", "safetensors", "config", "gated", "cardData",
        "lastModified", "sha",
    ),
    "datasets": ("downloads", "tags", "gated", "cardData", "description", "lastModified", "sha"),
}  # fmt: skip

DESCRIPTION_CHARACTERS = 20_000
_WORD_CHARACTERS, _WORDS = 100, 200
_CONFIGS, _COLUMNS, _CLASS_NAMES, _DEPTH = 200, 500, 200, 8
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}|[\w.-]{1,96}")
# What the hub calls a model's task, where it reads or writes text.
_TEXT_TASKS = frozenset(
    (
        "conversational", "feature-extraction", "fill-mask", "multiple-choice", "question-answering",
        "sentence-similarity", "summarization", "table-question-answering", "text-classification", "text-generation",
        "text2text-generation", "token-classification", "translation", "zero-shot-classification",
    )
)  # fmt: skip
_DATASET_MODALITIES = {"text", "tabular", "document"}
_WEIGHT_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8": 1, "I8": 1, "U8": 1}
_OTHER_WEIGHTS = {"pytorch", "tf", "jax", "onnx", "gguf"}
_SILENT_TAGS = re.compile(
    r"(region|license|language|base_model|dataset|datasets|arxiv|doi|library|format|modality|size_categories|"
    r"task_categories|task_ids|multilinguality|annotations_creators|language_creators|source_datasets|deploy)\b.*:|"
    r"(transformers|pytorch|tf|jax|onnx|safetensors|endpoints_compatible|text-generation-inference|generated_from_trainer|"
    r"model-index|autotrain_compatible|has_space|rust)$"
)  # fmt: skip


def entry(kind: str, item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The entry of one listed repository; None of what is no text, or has no name.

    Beside what `read` knows it has `sha` and `last_modified`, the state of the repository that it was made from.
    """
    id = item.get("id") or item.get("modelId")
    if not isinstance(id, str) or not _NAME.fullmatch(id):
        return None
    tags = _words(item.get("tags"))
    made = (_model if kind == "models" else _dataset)(item, tags)
    if made is None:
        return None
    card = _mapping(item.get("cardData"))
    downloads = item.get("downloads")
    common = {
        "id": id,
        "languages": _languages(card, tags),
        "licence": _licence(card, tags),
        "downloads": downloads if _is_count(downloads) or (downloads == 0 and downloads is not False) else None,
        "tags": [tag for tag in tags if not _SILENT_TAGS.match(tag)],
        "gated": bool(item["gated"]) if isinstance(item.get("gated"), bool | str) else None,
        "sha": _word(item.get("sha")),
        "last_modified": _word(item.get("lastModified")),
    }
    known = {name: value for name, value in (common | made).items() if value not in (None, "", [], {})}
    return {"description": "", **known}


def with_card(entry: Mapping[str, Any], card: str) -> dict[str, Any]:
    """The entry described by its card, where that says anything."""
    text = _text(card)
    return {**entry, "description": text} if text.strip() else dict(entry)


def _model(item: Mapping[str, Any], tags: list[str]) -> dict[str, Any] | None:
    task = _word(item.get("pipeline_tag"))
    if task and task not in _TEXT_TASKS:
        return None
    config = _mapping(item.get("config"))
    weights = _mapping(item.get("safetensors"))
    sizes = {name: count for name, count in _mapping(weights.get("parameters")).items() if _is_count(count)}
    size = sum(count * _WEIGHT_BYTES.get(name.partition("_")[0], 0) for name, count in sizes.items())
    sized = sizes and all(name.partition("_")[0] in _WEIGHT_BYTES for name in sizes)
    total = weights.get("total")
    safetensors: bool | None = True if weights or "safetensors" in tags else None
    if safetensors is None and _OTHER_WEIGHTS.intersection(tags):
        safetensors = False  # the hub lists the formats that it finds
    architecture = architectures.kind(config) or (architectures.unfit(config) if config else "")
    if _word(item.get("library_name")) in ("peft", "adapter-transformers"):
        architecture = "an adapter without its base model"
    return {
        "description": _of_model(item, config, tags, task),
        "tasks": [task] if task else [],
        "architecture": architecture,
        "model_type": _word(config.get("model_type")),
        "parameters": total if _is_count(total) else sum(sizes.values()),
        "size_bytes": size if sized else None,
        "safetensors": safetensors,
    }


def _of_model(item: Mapping[str, Any], config: Mapping[str, Any], tags: list[str], task: str) -> str:
    """A sentence of what is listed, for a model whose card is not read."""
    what = next(iter(_words(config.get("architectures"))), "") or _word(config.get("model_type")) or "A model"
    card = _mapping(item.get("cardData"))
    base = _tagged(tags, "base_model") or _words(card.get("base_model"))
    data = _tagged(tags, "dataset") or _words(card.get("datasets"))
    told = _languages(card, tags)
    parts = [what, f"for {task.replace('-', ' ')}" if task else "", f"in {', '.join(told[:10])}" if told else ""]
    parts.append(f"made of {base[-1].rpartition(':')[2]}" if base else "")
    parts.append(f"trained on {', '.join(data[:5])}" if data else "")
    return " ".join(part for part in parts if part) + "."


def _dataset(item: Mapping[str, Any], tags: list[str]) -> dict[str, Any] | None:
    modalities = set(_tagged(tags, "modality"))
    if modalities and not modalities & _DATASET_MODALITIES:
        return None
    card = _mapping(item.get("cardData"))
    tasks = _words(card.get("task_categories")) or _tagged(tags, "task_categories")
    name = _word(card.get("pretty_name"))
    told = " ".join(_text(item.get("description")).split())
    if not told and tasks:
        told = f"Data for {', '.join(task.replace('-', ' ') for task in tasks)}."
    return {
        "description": f"{name}. {told}".strip() if name and not told.startswith(name) else told,
        "tasks": tasks,
        "configs": _configs(card.get("dataset_info")),
    }


def _configs(info: Any) -> list[dict[str, Any]]:
    """The configurations that `dataset_info` of a card's header declares; those whose columns are clear."""
    found = []
    for one in (info if isinstance(info, list) else [info])[:_CONFIGS]:
        declared = _mapping(one)
        columns = declared.get("features")
        if not isinstance(columns, list) or not 0 < len(columns) <= _COLUMNS:
            continue
        class_names: dict[str, list[str]] = {}
        features = _fields(columns, "", class_names, 0)
        if not features:
            continue
        splits = _splits(declared.get("splits"))
        config: dict[str, Any] = {"name": _word(declared.get("config_name")) or "default", "features": features}
        config |= {"class_names": class_names} if class_names else {}
        config |= {"splits": splits} if splits else {}
        size = declared.get("dataset_size")
        found.append(config | ({"size_bytes": size} if _is_count(size) else {}))
    return found


def _splits(declared: Any) -> dict[str, int]:
    rows = {}
    for split in map(_mapping, declared if isinstance(declared, list) else []):
        if _is_count(split.get("num_examples")) and (name := _word(split.get("name"))):
            rows[name] = split["num_examples"]
    return rows


def _fields(columns: Any, inside: str, class_names: dict[str, list[str]], depth: int) -> dict[str, str]:
    """{name: type} of a list of columns; {} where one of them is not understood."""
    fields: dict[str, str] = {}
    for column in columns if isinstance(columns, list) and depth < _DEPTH else ():
        name = _word(_mapping(column).get("name"))
        type = _type(_mapping(column), f"{inside}{name}", class_names, depth + 1) if name else ""
        if not type or (inside and not _plain(name)):
            return {}
        fields[name] = type
    return fields


def _type(declared: Mapping[str, Any], path: str, class_names: dict[str, list[str]], depth: int) -> str:
    """A type in the catalogue's notation ("sequence<string>"); "" where it is not understood."""
    if depth > _DEPTH:
        return ""
    for many in ("sequence", "list"):
        if many in declared:
            inner = declared[many]
            if isinstance(inner, str):
                of = _scalar(inner)
            elif isinstance(inner, list):
                of = _type({"struct": inner}, path, class_names, depth + 1)
            elif isinstance(inner, Mapping) and not {"dtype", "struct", *("sequence", "list")} & set(inner):
                of = _type({"dtype": inner}, path, class_names, depth + 1)
            else:
                of = _type(_mapping(inner), path, class_names, depth + 1)
            return f"{many}<{of}>" if of else ""
    if "struct" in declared:
        fields = _fields(declared["struct"], f"{path}.", class_names, depth)
        return f"struct<{', '.join(f'{name}: {type}' for name, type in fields.items())}>" if fields else ""
    kind = declared.get("dtype")
    if isinstance(kind, str):
        return _scalar(kind)
    (name, about) = next(iter(_mapping(kind).items()), ("", None))
    if name == "class_label":
        names = _mapping(about).get("names")
        values = list(names.values()) if isinstance(names, Mapping) else names
        if isinstance(values, list) and 0 < len(values) <= _CLASS_NAMES:
            class_names[path] = [_text(str(value))[:_WORD_CHARACTERS] for value in values]
        return "class_label"
    if name == "translation":
        pair = [code for code in _words(_mapping(about).get("languages")) if _plain(code)]
        return f"translation<{','.join(pair)}>" if pair else ""
    return _scalar(name)


def _scalar(name: Any) -> str:
    word = _word(name)
    return "string" if word == "large_string" else word if re.fullmatch(r"[\w\[\], ()]{1,60}", word) else ""


def _plain(name: str) -> bool:
    return not set(name) & set("<>,:")


def _languages(card: Mapping[str, Any], tags: list[str]) -> list[str]:
    said = _words(card.get("language")) or _tagged(tags, "language")
    # The hub puts a model's languages among its tags as they are.
    return languages.known(said or [tag for tag in tags if re.fullmatch(r"[a-z]{2}|multilingual", tag)])


def _licence(card: Mapping[str, Any], tags: list[str]) -> str:
    named = _words(card.get("license")) or _tagged(tags, "license")
    return ", ".join(named).lower()


def _tagged(tags: list[str], kind: str) -> list[str]:
    return [tag.removeprefix(f"{kind}:") for tag in tags if tag.startswith(f"{kind}:")]


def _mapping(value: Any) -> Mapping[str, Any]:
    return {str(name): one for name, one in value.items()} if isinstance(value, Mapping) else {}


def _words(value: Any) -> list[str]:
    """Short texts, of a list or of one alone."""
    values = value if isinstance(value, list) else [value]
    return list(dict.fromkeys(word for one in values[:_WORDS] if (word := _word(one))))


def _word(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _WORD_CHARACTERS:
        return ""
    return " ".join(_text(value).split())


def _text(value: Any) -> str:
    """A text without control characters and half surrogate pairs, cut."""
    if not isinstance(value, str):
        return ""
    return _CONTROL.sub(" ", value[:DESCRIPTION_CHARACTERS]).encode("utf-8", "replace").decode()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 62
