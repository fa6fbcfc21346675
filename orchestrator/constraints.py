"""What a person asks of the model and of the dataset: as options, as the services take it, and in words.

check               refuses what cannot be
codes               languages as ISO 639-1
of_models           the options as the model search takes them
of_datasets         ... and as the dataset search takes them
asked_for           {"model": "at most 300 MB, permissive licence", "dataset": ...}, only what was asked
counted             how many were left out for which reason
other_licence       why a dataset's licence, once it is known, is not what was asked for; "" where it is
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from p2m.dataset_retriever.v1 import dataset_retriever_pb2
from p2m.model_retriever.v1 import model_retriever_pb2
from p2m.run.v1 import run_pb2

from catalogue import languages
from orchestrator.amounts import bytes_text
from services.kit import licences
from services.kit.errors import InvalidArgument

MAX_MODEL_BYTES = 3_000_000_000
MOST_LANGUAGES = 32

_TASK = re.compile(r"[a-z0-9]+(-[a-z0-9]+){0,9}")


def check(options: run_pb2.RunOptions) -> None:
    """InvalidArgument for a licence, a language or a task that is none. Numbers are checked with the other options."""
    if options.licence:
        licences.check_wanted(options.licence, "options.licence")
    if len(options.languages) > MOST_LANGUAGES:
        raise InvalidArgument(
            "BAD_LANGUAGES", f"{len(options.languages)} languages are given; wanted at most {MOST_LANGUAGES}.",
            field="options.languages",
        )  # fmt: skip
    codes(options.languages)
    if options.dataset_task and not _TASK.fullmatch(options.dataset_task):
        raise InvalidArgument(
            "BAD_TASK",
            f"{options.dataset_task[:80]!r} is no task; wanted its name on the hub, such as text-classification.",
            field="options.dataset_task",
        )


def codes(given: Iterable[str]) -> list[str]:
    """Languages as ISO 639-1 codes, each once; InvalidArgument for a word that is none."""
    found: list[str] = []
    for language in given:
        if not (known := languages.known((language,))):
            raise InvalidArgument(
                "BAD_LANGUAGES", f"{language[:40]!r} is no language; wanted ISO 639-1 codes such as en or ja.",
                field="options.languages",
            )  # fmt: skip
        found += known
    return list(dict.fromkeys(found))


def of_models(options: run_pb2.RunOptions) -> model_retriever_pb2.Constraints:
    """What a model must satisfy."""
    return model_retriever_pb2.Constraints(
        max_size_bytes=options.max_model_bytes or MAX_MODEL_BYTES, model=options.model,
        cpu_latency_ms=options.max_cpu_latency_ms, licence=options.licence, languages=options.languages,
    )  # fmt: skip


def of_datasets(options: run_pb2.RunOptions) -> dataset_retriever_pb2.Filters:
    """What a dataset must satisfy; without rows to train on it is of no use to any run."""
    return dataset_retriever_pb2.Filters(
        languages=options.languages, licence=options.licence, max_size_bytes=options.max_dataset_bytes,
        task=options.dataset_task, include_gated=options.include_gated, needs_train_split=True,
    )  # fmt: skip


def asked_for(options: run_pb2.RunOptions) -> dict[str, str]:
    """What was asked of the model and of the dataset in words; "" where nothing was."""
    licence = (
        f"{options.licence} licence"
        if options.licence in ("permissive", "commercial")
        else f"licence {options.licence}"
    )
    both = [licence] if options.licence else []
    model = [f"at most {bytes_text(options.max_model_bytes)}"] if options.HasField("max_model_bytes") else []
    if options.HasField("max_cpu_latency_ms"):
        model.append(f"at most {options.max_cpu_latency_ms:g} ms an answer on a CPU")
    dataset = [f"at most {bytes_text(options.max_dataset_bytes)}"] if options.HasField("max_dataset_bytes") else []
    dataset += [f"for {options.dataset_task}"] if options.dataset_task else []
    spoken = ", ".join(options.languages)
    return {
        "model": ", ".join([*model, *both, *([f"knows {spoken}"] if spoken else [])]),
        "dataset": ", ".join(
            [
                *dataset,
                *both,
                *([f"in {spoken.replace(', ', ' or ')}"] if spoken else []),
                *(["gated ones too"] if options.include_gated else []),
            ]
        ),
    }


def counted(excluded: Sequence[Mapping[str, str]]) -> str:
    """How many were left out for which reason, the most frequent first: "3 (wanted ja), 1 (the limit is 0.30 GB)".

    A reason says what is, then, after a semicolon, what was wanted; by the latter alike ones are told.
    """
    kinds = Counter(one["reason"].rpartition(";")[2].strip().rstrip(".") for one in excluded)
    return ", ".join(f"{count} ({kind})" for kind, count in kinds.most_common())


def other_licence(dataset: str, licence: str, options: run_pb2.RunOptions) -> str:
    """One sentence where the licence that a dataset turned out to have is not what was asked for; else ""."""
    if not options.licence or licences.allows(licence, options.licence) is not False:
        return ""
    return f"The licence of {dataset} is {licence}; wanted {options.licence}."
