"""The model that the demo asks: fetched and loaded at the first question, dropped after a while without one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from services.evaluator.predict import AnswerJob, Answers
from services.evaluator.values import PredictRequest, PredictResult
from services.kit.artifacts import Artifacts
from services.kit.errors import InvalidArgument
from services.kit.settings import Settings
from services.kit.values import Progress
from services.kit.worker import Resident

MAX_INPUTS = 1000
# Small enough that progress is seen, large enough to fill a batch.
_AT_ONCE = 64


class ResidentModel:
    """One model at a time; a question for another one replaces it."""

    def __init__(self, artifacts: Artifacts, settings: Settings) -> None:
        self._artifacts = artifacts
        self._idle_s = settings.predict_idle_s
        self._child = Resident("services.evaluator.predict:Predictor", settings)
        self._asking = asyncio.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._held = ""
        self._dropping: asyncio.Task[None] | None = None

    async def predict(self, request: PredictRequest, report: Callable[[Progress], None]) -> PredictResult:
        """The outputs for the request's inputs. Raises InvalidArgument for no inputs or too many."""
        total = len(request.inputs)
        if not 1 <= total <= MAX_INPUTS:
            raise InvalidArgument(
                "BAD_INPUTS", f"There are {total} inputs; wanted 1 to {MAX_INPUTS:,}.", field="inputs"
            )
        async with self._asking:
            if self._dropping:
                self._dropping.cancel()
            try:
                folder = await self._fetched(request, report)
                outputs: list[str] = []
                seconds = 0.0
                for start in range(0, total, _AT_ONCE):
                    report(Progress(start, total, "inputs", "answering"))
                    job = AnswerJob("model", str(folder), request.spec, request.inputs[start : start + _AT_ONCE])
                    answers = await self._child.ask(job, Answers)
                    outputs += answers.outputs
                    seconds += answers.seconds
                return PredictResult(tuple(outputs), seconds)
            finally:
                self._dropping = asyncio.ensure_future(self._drop_when_idle())

    async def close(self) -> None:
        """Ends the child and removes the model's files."""
        if self._dropping:
            self._dropping.cancel()
        async with self._asking:
            await self._drop()

    async def _fetched(self, request: PredictRequest, report: Callable[[Progress], None]) -> Path:
        """The folder of the request's model, fetched unless it is the one held."""
        if self._folder is None or self._held != request.model.uri:
            report(Progress(message="loading the model"))
            await self._drop()
            folder = tempfile.TemporaryDirectory(prefix="p2m-evaluator-", ignore_cleanup_errors=True)
            await asyncio.to_thread(self._artifacts.fetch, request.model, Path(folder.name) / "model")
            self._folder, self._held = folder, request.model.uri
        return Path(self._folder.name) / "model"

    async def _drop_when_idle(self) -> None:
        await asyncio.sleep(self._idle_s)
        async with self._asking:
            await self._drop()

    async def _drop(self) -> None:
        await self._child.stop()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.cleanup)
        self._folder, self._held = None, ""
