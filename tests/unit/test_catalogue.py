"""The starter catalogue, and how a catalogue becomes indexes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from catalogue import build
from catalogue.cards import model_text
from catalogue.dataset_cards import dataset_text
from catalogue.facts import facts
from catalogue.read import read, starter
from services.dataset_retriever.choice import FLOOR, choose
from services.dataset_retriever.search import query_of, search
from services.dataset_retriever.service import DatasetRetrieverService
from services.kit import embed, index, locations, worker
from services.kit.errors import DataLoss, FailedPrecondition, InvalidArgument
from services.kit.server import Server
from services.kit.settings import Settings
from services.kit.values import PromptSpec
from services.model_retriever.service import ModelRetrieverService
from tests.conftest import ROOT

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/prompt.txt"))


def _instruction(prompt: str) -> str:
    """What stands before the demonstrations."""
    return re.split(r"\n\s*\n|\ninput=", prompt, maxsplit=1)[0].strip()


@pytest.fixture(scope="module")
def module_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), openai_base_url="", openai_api_key="", hub_offline=True)


@pytest.fixture(scope="module")
def encoder(module_settings: Settings) -> Iterator[embed.Encoder]:
    yield embed.Encoder(module_settings)


@pytest.fixture(scope="module")
def datasets(module_settings: Settings) -> index.Index:
    """The starter's datasets, indexed."""
    build.build([], [], module_settings.catalogue_folder, module_settings)
    return index.Index.load(module_settings.catalogue_folder / "datasets")


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_example_finds_its_dataset(
    name: str, datasets: index.Index, encoder: embed.Encoder, module_settings: Settings
) -> None:
    """Offline, an example's prompt, as it was written, chooses its own dataset among all of the starter catalogue."""
    query = _instruction((ROOT / "examples" / name / "prompt.txt").read_text())
    vector = encoder.answer(embed.Texts((query,))).vectors[0]
    found = search(datasets, query, vector, 25, module_settings).candidates
    assert choose(found).chosen == f"p2m/{name}"
    assert found[0].reachable and found[0].parts[0].value >= FLOOR and found[0].why


def test_a_bad_translation_does_not_lose_the_dataset(
    datasets: index.Index, encoder: embed.Encoder, module_settings: Settings
) -> None:
    """Where a translation has lost the meaning, the instruction as it was written still finds the dataset."""
    written = _instruction((ROOT / "examples" / "german-times" / "prompt.txt").read_text())
    spec = PromptSpec("The time is passing, hours, minutes, and seconds.", (), "de", written)
    vector = encoder.answer(embed.Texts((query_of(spec),))).vectors[0]
    assert choose(search(datasets, query_of(spec), vector, 25, module_settings).candidates).chosen == "p2m/german-times"


@pytest.mark.parametrize(
    "query",
    [
        "Write a haiku about the given season.",
        "Translate short English sentences into idiomatic French.",
        "Generate an answer to a question from a context passage.",
        "Given a chess position in FEN, say the best move.",
        "Summarize a news article in one sentence.",
    ],
)
def test_another_task_finds_none(
    query: str, datasets: index.Index, encoder: embed.Encoder, module_settings: Settings
) -> None:
    """Offline, a task that no dataset of this machine is for chooses none, and says why."""
    vector = encoder.answer(embed.Texts((query,))).vectors[0]
    choice = choose(search(datasets, query, vector, 25, module_settings).candidates)
    assert choice.chosen == "" and choice.notes


@pytest.mark.parametrize("query", ["日本語の文を要約してください", "🙂", "?", "a " * 5000, "\0"])
def test_any_query_ranks_without_repeats(
    query: str, datasets: index.Index, encoder: embed.Encoder, module_settings: Settings
) -> None:
    """A query in any script, of any length, at a depth above the catalogue's size: each dataset at most once."""
    found = search(datasets, query, encoder.answer(embed.Texts((query,))).vectors[0], 1000, module_settings).candidates
    assert 0 < len(found) <= len(datasets) and len({one.id for one in found}) == len(found)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(any(part.value > 0 for part in one.parts) for one in found)


def test_k_has_bounds(datasets: index.Index, module_settings: Settings) -> None:
    """k below 0 or above 1,000 is INVALID_ARGUMENT."""
    for k in (-1, 1001):
        with pytest.raises(InvalidArgument):
            search(datasets, "x", [0.0] * 384, k, module_settings)


def test_both_ways_to_encode_are_one(module_settings: Settings, encoder: embed.Encoder, tmp_path: Path) -> None:
    """sentence-transformers, which builds an index, and plain transformers, which answer queries, give one vector."""
    texts = ["Extract the amount of money.", "Uhrzeiten", "", "long " * 400]
    request = embed.TextFile(str(tmp_path / "texts"), str(tmp_path / "vectors.npy"))
    Path(request.texts).write_text("".join(json.dumps(text) + "\n" for text in texts))
    built = embed.encode_file(request, worker.WorkerContext(module_settings))
    asked = encoder.answer(embed.Texts(tuple(texts)))
    assert np.allclose(np.load(request.vectors), np.asarray(asked.vectors), atol=1e-5)
    assert built.encoder == encoder.answer(embed.Texts()).encoder != ""


def test_the_starter_names_what_is_here(module_settings: Settings) -> None:
    """Every example is in the catalogue with its files and row counts; the offline model is, and can be loaded."""
    datasets = {entry["id"]: entry for entry in read([starter("datasets")])}
    for name in EXAMPLES:
        entry = datasets[f"p2m/{name}"]
        folder = Path(entry["location"].removeprefix("folder:"))
        for split, rows in entry["configs"][0]["splits"].items():
            assert sum(1 for _ in (folder / f"{split}.jsonl").open()) == rows
    models = {entry["id"]: entry for entry in read([starter("models")])}
    here = models["p2m/minilm-encoder-decoder"]
    weights = locations.resolve(here["location"], module_settings) / "model.safetensors"
    assert weights.stat().st_size == here["size_bytes"] and len(models) >= 30


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{}", "line 2: id is None"),
        ('{"id": "b", "downloads": -1}', "downloads of b is -1"),
        ('{"id": "b", "size_bytes": "big"}', "size_bytes of b is 'big'"),
        ('{"id": "b", "description": 3}', "description of b is no text"),
        ('{"id": "b", "configs": [{"features": {}}]}', "configs of b"),
        ('{"id": "b", "downloads": NaN}', "downloads of b is nan"),
        ('{"id"', "line 2"),
    ],
)
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, line: str, says: str) -> None:
    """A wrong line of a catalogue is INVALID_ARGUMENT with its number and what is wrong."""
    (tmp_path / "models.jsonl").write_text(f'{{"id": "a"}}\n{line}\n')
    with pytest.raises(InvalidArgument, match=says):
        read([tmp_path / "models.jsonl"])


def test_a_given_catalogue_joins_the_starters(settings: Settings, tmp_path: Path) -> None:
    """A given file's entry counts before the starter's of the same id; what was not given is left as it was."""
    (tmp_path / "mine.jsonl").write_text(
        '{"id": "mine", "description": "m"}\n{"id": "google-t5/t5-small", "description": "mine"}\n'
    )
    built = build.build([tmp_path / "mine.jsonl"], [], settings.catalogue_folder, settings)
    loaded = index.Index.load(settings.catalogue_folder / "models")
    assert built.models == len(loaded) == len(read([starter("models")])) + 1 and built.datasets == 0
    assert loaded.find("google-t5/t5-small") == {"id": "google-t5/t5-small", "description": "mine"}
    assert not (settings.catalogue_folder / "datasets").exists()


@pytest.fixture
async def resident(settings: Settings) -> AsyncIterator[worker.Resident]:
    hosted = worker.Resident("services.kit.embed:Encoder", settings)
    yield hosted
    await hosted.stop()


async def test_the_starter_is_built_where_it_is_missing_old_or_damaged(
    settings: Settings, resident: worker.Resident
) -> None:
    """A first start builds the indexes; the next one takes them as they are; a damaged one is built again."""
    folder = settings.catalogue_folder / "datasets"
    first = await build.ready("datasets", settings, resident)
    assert len(first) == len(read([starter("datasets")])) and first.manifest.encoder
    stamp = (folder / "current").stat().st_mtime_ns
    await build.ready("datasets", settings, resident)
    assert (folder / "current").stat().st_mtime_ns == stamp
    (first.version / "texts.jsonl").write_text("")
    again = await build.ready("datasets", settings, resident)
    assert len(again) == len(first) and (again.version / "texts.jsonl").stat().st_size > 0


async def test_an_index_of_given_files_is_not_made_again(settings: Settings, tmp_path: Path) -> None:
    """A user's own index, damaged, is an error that says what to do; it is never replaced by the starter's."""
    (tmp_path / "mine.jsonl").write_text('{"id": "mine"}\n')
    await build.build_one("models", [tmp_path / "mine.jsonl"], settings.catalogue_folder, settings)
    built = await build.ready("models", settings)
    assert built.find("mine")
    (built.version / "texts.jsonl").write_text("")
    with pytest.raises(DataLoss, match="catalogue build"):
        await build.ready("models", settings)


async def test_an_index_of_another_encoder_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Vectors of another encoder mean something else: FAILED_PRECONDITION, not a wrong ranking."""
    folder = settings.catalogue_folder / "models"
    index.save(folder, [{"id": "mine"}], ["mine"], source="given:x", encoder="other")
    with pytest.raises(FailedPrecondition, match="another encoder"):
        await build.ready("models", settings)


async def test_both_retrievers_are_serving_within_ten_seconds(shared: Path, settings: Settings) -> None:
    """With indexes over 11,299 models and 2,620 datasets both services are warm, encoder included, in ten seconds."""
    given = {kind: read([shared / "data" / "catalogue" / f"{kind}.jsonl.gz"]) for kind in ("models", "datasets")}
    encoder = embed.digest(locations.resolve(settings.encoder, settings))
    texts = [dataset_text(entry) for entry in given["datasets"]]
    # Encoding takes minutes, and which numbers the vectors hold does not change how long they take to load.
    vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
    folder = settings.catalogue_folder
    index.save(
        folder / "datasets", given["datasets"], texts, vectors, facts=facts("datasets", given["datasets"]),
        source="given:test", encoder=encoder,
    )  # fmt: skip
    index.save(
        folder / "models", given["models"], [model_text(one) for one in given["models"]],
        facts=facts("models", given["models"]), source="given:test",
    )  # fmt: skip
    servers = [Server(service(settings), settings) for service in (DatasetRetrieverService, ModelRetrieverService)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await asyncio.gather(*(server.start(port=0) for server in servers))
        assert loop.time() - began < 10
    finally:
        await asyncio.gather(*(server.stop() for server in servers))
