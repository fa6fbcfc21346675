"""The protos are well-formed and commented, break no client, and the generated code is theirs."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROTO = ROOT / "proto"
BUF = shutil.which("buf") or str(Path(sys.executable).with_name("buf"))


def run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_protos_are_well_formed() -> None:
    """buf lint (STANDARD and COMMENTS) finds nothing."""
    linted = run(BUF, "lint", "proto")
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")


def test_lint_would_find_a_field_without_a_comment(tmp_path: Path) -> None:
    """The lint is not blind: a field without its comment is found."""
    copy = shutil.copytree(PROTO, tmp_path / "proto", ignore=shutil.ignore_patterns("gen"))
    common = copy / "p2m/common/v1/common.proto"
    common.write_text(common.read_text() + "\n// A message.\nmessage Bare {\n  string bare = 1;\n}\n")
    linted = run(BUF, "lint", "proto", folder=tmp_path)
    assert linted.returncode != 0 and "bare" in linted.stdout


def committed() -> list[str]:
    """The commits of this checkout that have protos to hold these against."""
    known = ("HEAD", "main", "origin/main")
    return [
        name
        for name in known
        if not run("git", "rev-parse", "--verify", "--quiet", f"{name}:proto/buf.yaml").returncode
    ]


@pytest.mark.parametrize("against", committed())
def test_no_client_is_broken(against: str, tmp_path: Path) -> None:
    """A client of the protos as they were committed can still talk to a server of these."""
    archive = tmp_path / "protos.tar"
    assert run("git", "archive", "--output", str(archive), against, "proto").returncode == 0
    broken = run(BUF, "breaking", "proto", "--against", f"{archive}#subdir=proto")
    assert (broken.returncode, broken.stdout + broken.stderr) == (0, "")


def test_a_broken_client_would_be_found(tmp_path: Path) -> None:
    """The check is not blind: a field of another type is found."""
    copy = shutil.copytree(PROTO, tmp_path / "proto", ignore=shutil.ignore_patterns("gen"))
    common = copy / "p2m/common/v1/common.proto"
    common.write_text(common.read_text().replace("int64 size_bytes = 3;", "string size_bytes = 3;"))
    broken = run(BUF, "breaking", str(copy), "--against", str(PROTO))
    assert broken.returncode != 0 and "size_bytes" in broken.stdout


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """`make proto` would change nothing: every generated file is what the compiler makes of the protos now."""
    made = run(sys.executable, str(PROTO / "generate.py"), str(tmp_path))
    assert made.returncode == 0, made.stderr
    fresh = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*") if "__pycache__" not in path.parts}
    committed = {
        path.relative_to(PROTO / "gen") for path in (PROTO / "gen").rglob("*.py*") if path.parent.name != "__pycache__"
    }
    assert fresh == committed
    stale = [str(path) for path in fresh if not filecmp.cmp(tmp_path / path, PROTO / "gen" / path, shallow=False)]
    assert stale == []
