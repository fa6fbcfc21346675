"""Queries for bench.model_retrieval: prompts and hypothetical cards of common tasks, with the models that fit them.

    python -m bench.model_gold --catalogue F [--queries bench/model_queries.jsonl] > queries.jsonl

There are no labels for model retrieval, so these are our own: 70 prompts as a person would write them, 8 in other
languages than English, 15 cards as an LLM would. A model fits by facts: "id", a pattern that its id holds, or "header",
one that a line of its card's header holds, without "not" in its id. The table of tasks (catalogue/tasks.py) and the
weights (services/model_retriever/relevance.py) were made with these queries in sight: take the figures as a check that
nothing is lost, not as what unseen prompts get. bench/model_queries_unseen.jsonl holds 28 prompts of rarer tasks that
were written when the table was done; of all settings only the power of downloads was chosen with them in sight.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.ranking import read_jsonl
from catalogue.read import read

QUERIES = Path(__file__).with_name("model_queries.jsonl")
_HEADER = re.compile(r"\A\s*---\s*\n(.*?)\n---", re.DOTALL)


def main() -> int:
    """Prints {query, gold} lines."""
    parser = argparse.ArgumentParser(description="Queries for bench.model_retrieval, as JSONL.")
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--queries", type=Path, default=QUERIES)
    arguments = parser.parse_args()
    for line in with_gold(read_jsonl(arguments.queries), read([arguments.catalogue])):
        print(json.dumps(line, ensure_ascii=False))
    return 0


def with_gold(queries: Sequence[Mapping[str, str]], entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each query with the ids of the entries that fit it."""
    known = [(entry["id"], _header(entry["description"])) for entry in entries]
    return [{"query": query["query"], "gold": _fitting(query, known)} for query in queries]


def _fitting(query: Mapping[str, str], known: Sequence[tuple[str, str]]) -> list[str]:
    id, header, others = (_pattern(query.get(key)) for key in ("id", "header", "not"))
    return [
        name
        for name, said in known
        if not (others and others.search(name)) and ((id and id.search(name)) or (header and header.search(said)))
    ]


def _pattern(text: str | None) -> re.Pattern[str] | None:
    return re.compile(text, re.IGNORECASE | re.MULTILINE) if text else None


def _header(card: str) -> str:
    found = _HEADER.match(card)
    return found[1].split("widget:")[0] if found else ""


if __name__ == "__main__":
    sys.exit(main())
