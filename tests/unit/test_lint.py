"""The doors between the parts stay shut, and the parts start light."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = ("torch", "transformers", "sentence_transformers", "faiss", "datasets", "gradio")


def test_imports_keep_to_the_rules() -> None:
    """import-linter keeps every contract of pyproject.toml."""
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    linted = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert linted.returncode == 0, linted.stdout[-3000:]
    assert "0 broken" in linted.stdout


def test_nothing_heavy_is_imported_at_the_start() -> None:
    """Importing every module of kit and orchestrator, and the command line, imports no heavy library."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("services/kit", "orchestrator", "catalogue")
        for path in sorted((ROOT / folder).glob("*.py"))
        if path.stem != "__init__"
    ]
    assert len(modules) > 20
    code = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() == "[]"


def test_what_reads_no_dataset_starts_without_arrow() -> None:
    """The parser and the model retriever, with its catalogue, import no pyarrow: their images have none."""
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import services.parser.service, services.model_retriever.service\n"
        "from catalogue.read import read, starter\n"
        "print(len(read([starter('models')])) > 100)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (said.returncode, said.stdout.strip()) == (0, "True"), said.stderr
