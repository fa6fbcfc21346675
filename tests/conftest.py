"""Fixtures that every kind of test uses.

Generated examples are the same in every run; `pytest --hypothesis-profile=default` draws others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from weakref import WeakKeyDictionary

import hypothesis
import pytest

from services.kit.artifacts import Artifacts
from services.kit.settings import Settings
from services.kit.telemetry import metrics

ROOT = Path(__file__).resolve().parent.parent

# A change must not fail for an example that nobody's change has to do with.
hypothesis.settings.register_profile("seeded", derandomize=True)
hypothesis.settings.load_profile("seeded")


@pytest.fixture(autouse=True)
def own_precision() -> Iterator[None]:
    """A training sets its process's precision. It has a process of its own in use, and in a test others come after it:
    on a processor with AMX units they would find what they compute rounded."""
    yield
    if torch := sys.modules.get("torch"):
        torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a home of the test's own, with no LLM and no hub."""
    return Settings(home=tmp_path / "home", openai_base_url="", openai_api_key="", hub_offline=True)


@pytest.fixture
def artifacts(settings: Settings) -> Artifacts:
    """A folder store of the test's own, seen by a service named "tests"."""
    return Artifacts.open(settings, "tests")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("P2M_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"the reference data is absent: no folder {folder}/data (set P2M_SHARED)")
    return folder


@pytest.fixture
def watched_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics that look only at what this test makes, and not at what lives on of earlier ones."""
    for metric in metrics.METRICS:
        if isinstance(metric, metrics.Watched):
            monkeypatch.setattr(metric, "_watched", WeakKeyDictionary())
