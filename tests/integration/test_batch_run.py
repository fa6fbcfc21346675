"""`p2m run --prefer cost`: a whole run whose examples come by the LLM's batch endpoint."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.integration.commands import Command
from tests.support.batch_server import BatchServer
from tests.support.models import tiny_t5
from tests.support.teacher import TOY_PROMPT

NUMBER = 60
# Dollars per million tokens, and half of it by batch.
PRICE = 1000.0


async def test_a_run_by_batches_that_is_killed(tmp_path: Path) -> None:
    """Killed while its batch is at the server, it goes on from prompt to model with that batch, paid for once, at half
    the price."""
    model = tiny_t5(tmp_path / "tiny")
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"scripted": [PRICE, PRICE]}))
    arguments = [
        "--skip", "datasets", "--model", f"folder:{model}", "--number", str(NUMBER), "--epochs", "1",
        "--teacher-rows", "4", "--export", "none", "--prefer", "cost",
    ]  # fmt: skip
    async with BatchServer(slow=True) as server:
        environment = {
            "OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "a key", "P2M_LLM": "scripted", "P2M_THREADS": "1",
            "P2M_LLM_PRICES": str(prices), "P2M_LLM_BATCH_LOOK_S": "0.05", "P2M_CATALOGUE": str(tmp_path / "none"),
        }  # fmt: skip
        command = Command(tmp_path, "batched", TOY_PROMPT, arguments, environment)
        try:
            await command.start()
            async with asyncio.timeout(60):
                while not any(batch.looks for batch in server.batches.values()):
                    await asyncio.sleep(0.05)
            await command.kill()
            server.slow = False
            await command.start()
            assert await command.ended() == 0, command.log.read_text()[-3000:]
        finally:
            await command.stop()
        [first, *_] = server.batches.values()
        assert first.status == "completed"
    record = json.loads((command.out / "run.json").read_text())
    generated = record["generation"]
    assert generated["rows"] == NUMBER
    # Each answer that the server charged for was asked for once, and is in the ledger.
    assert len(server.served) == generated["batched"] > 0
    outcomes = generated["outcomes"].values()
    # One question goes ahead, in the usual way.
    assert sum(one["requests"] for one in outcomes) == generated["batched"] + 1
    tokens = sum(one["prompt_tokens"] + one["completion_tokens"] for one in outcomes)
    half = tokens * PRICE / 2 / 1e6
    assert half < sum(one["dollars"] for one in outcomes) < 1.2 * half
    assert record["evaluation"]["scores"]
