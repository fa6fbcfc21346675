"""Two processes that train one model together, as several GPUs would: torchrun, accelerate, gloo."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kit import telemetry
from services.kit.artifacts import Artifacts
from services.kit.errors import Cancelled, NotFound
from services.kit.settings import Settings
from services.kit.values import Progress, PromptSpec
from services.kit.worker import WorkerContext
from services.trainer.calls import HyperParameters, TrainRequest, TrainResult
from services.trainer.train import train
from tests.support.collector import Collector
from tests.support.models import copy_rows, tiny_encoder

ASKED = HyperParameters(
    learning_rate=3e-3, epochs=4, batch_tokens=512, checkpoint_steps=6, patience=0, head="text", micro_batch_tokens=200
)


class _Context(WorkerContext):
    """Keeps what is reported; stops the job at its first report past `stop_at` steps."""

    def __init__(self, settings: Settings, stop_at: int | None = None) -> None:
        super().__init__(settings)
        self.reports: list[Progress] = []
        self._stop_at = stop_at

    def report(self, progress: Progress) -> None:
        self.reports.append(progress)
        if self._stop_at is not None and progress.done >= self._stop_at:
            self.stop()


def _settings(home: Path, processes: int) -> Settings:
    return Settings(
        home=home, store="", openai_base_url="", openai_api_key="", hub_offline=True, threads=processes,
        train_processes=processes,
    )  # fmt: skip


def _train(model: Path, context: _Context, asked: HyperParameters = ASKED) -> TrainResult:
    artifacts = Artifacts.open(context.settings, "tests")
    request = TrainRequest(
        "run/train", artifacts.put_rows(copy_rows(120)), artifacts.put_rows(copy_rows(20, seed=1)),
        PromptSpec("Copy the first word."), f"folder:{model}", asked, 0,
    )  # fmt: skip
    return train(request, context)


@pytest.mark.timeout(300)
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each takes half of every batch: the losses are those of one process but for rounding, step for step."""
    model = tiny_encoder(tmp_path / "model")
    alone = _train(model, _Context(_settings(tmp_path / "alone", 1)))
    context = _Context(_settings(tmp_path / "together", 2))
    together = _train(model, context)
    assert [point.step for point in together.history] == [point.step for point in alone.history]
    assert alone.history[-1].train_loss < alone.history[0].train_loss / 1.3
    for one, two in zip(alone.history, together.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-3)
        assert two.validation_loss == pytest.approx(one.validation_loss, rel=1e-3)
    assert context.reports[-1].done == alone.history[-1].step
    folder = Artifacts.open(context.settings, "tests").fetch(together.model, tmp_path / "fetched")
    assert (folder / "model.safetensors").is_file()


@pytest.mark.timeout(300)
def test_two_processes_stop_and_go_on(tmp_path: Path) -> None:
    """A stop reaches both, what they did is kept, and one process can go on from there."""
    model = tiny_encoder(tmp_path / "model")
    long = HyperParameters(learning_rate=3e-3, epochs=4000, batch_tokens=512, checkpoint_steps=5000, head="text")
    contexts = [_Context(_settings(tmp_path / "home", processes), stop_at=1) for processes in (2, 1)]
    for context in contexts:
        with pytest.raises(Cancelled):
            _train(model, context, long)
    resumed_from = {metric.name: metric.value for metric in contexts[1].reports[-1].metrics}["resumed_from_step"]
    assert resumed_from >= 1


@pytest.mark.timeout(300)
def test_an_error_in_two_processes_is_one_error(tmp_path: Path) -> None:
    """What goes wrong in the processes is raised once, as if there were one, and is in the run's trace."""
    with Collector() as collector:
        settings = _settings(tmp_path / "home", 2).model_copy(update={"otlp_endpoint": collector.url})
        assert telemetry.start(settings, "trainer", worker=True)
        try:
            with telemetry.stage("run", 1.5, "train"), pytest.raises(NotFound) as caught:
                _train(tmp_path / "no model", _Context(settings))
        finally:
            telemetry.stop()
    assert "no model" in caught.value.message
    jobs = [span for span in collector.spans() if span.name == "job trainer.parallel"]
    assert {span.trace for span in jobs} == {telemetry.trace_id("run", 1.5)}
    assert jobs[0].failed == caught.value.reason
