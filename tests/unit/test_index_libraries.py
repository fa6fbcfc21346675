"""bm25s and rank_bm25, compared by what they find of a labelled collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.ranking import percent, read_jsonl, recall_at, reciprocal_rank
from services.kit.index import Index, ranked, save

QUERIES = 60


def test_both_libraries_find_as_much(shared: Path, tmp_path: Path) -> None:
    """On DataFinder's queries the recall and the reciprocal rank of both differ by less than their noise. Their lists
    do differ, since the two count rarity and break ties in their own ways."""
    folder = shared / "data" / "retrieval" / "datafinder"
    corpus, queries = read_jsonl(folder / "corpus.jsonl.gz"), read_jsonl(folder / "queries.dev.jsonl")[:QUERIES]
    right: dict[str, set[str]] = {}
    for line in (folder / "qrels.dev.tsv").read_text().splitlines():
        query, _, id, _ = line.split("\t")
        right.setdefault(query, set()).add(id)
    save(tmp_path / "datasets", corpus, [f"{entry['id']}\n{entry['title']}\n{entry['contents']}" for entry in corpus])

    found: dict[str, list[list[str]]] = {}
    for library in ("bm25s", "rank_bm25"):
        index = Index.load(tmp_path / "datasets", library=library)
        hits = [ranked(index.bm25(query["query"]), 100) for query in queries]
        found[library] = [[index.id(hit.number) for hit in of] for of in hits]

    gold = [right.get(query["qid"], set()) for query in queries]
    for measured in (lambda ids, of: recall_at(ids, of, 20), reciprocal_rank):
        scores = {name: [measured(*pair) for pair in zip(lists, gold, strict=True)] for name, lists in found.items()}
        difference = np.subtract(scores["bm25s"], scores["rank_bm25"])
        assert abs(difference.mean()) <= 2 * difference.std() / len(queries) ** 0.5 + 0.01
        assert abs(difference.mean()) < 0.03 and percent(scores["bm25s"]) > 10
    assert found["bm25s"] != found["rank_bm25"]


def test_another_ranking_would_be_noticed() -> None:
    """The measure is one that a shuffled list fails."""
    ids = [str(number) for number in range(100)]
    assert recall_at(ids, {"3"}, 20) == 1.0 and recall_at(ids[::-1], {"3"}, 20) == pytest.approx(0.0)
