"""Regenerates gen/p2m from p2m/**/*.proto: messages, gRPC stubs and their types.

    python proto/generate.py [OUT]        OUT is gen/ beside this file, unless given

The generated code is committed, so that nobody needs a compiler to run the services.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent


def generate(out: Path) -> None:
    """Writes the package `p2m` under `out`, replacing what is there."""
    # The plugins lie beside this interpreter, whether or not its environment is activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    shutil.rmtree(out / "p2m", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(HERE)) for path in HERE.glob("p2m/**/*.proto"))
    well_known = str(files("grpc_tools") / "_proto")
    status = protoc.main(
        ["protoc", f"-I{HERE}", f"-I{well_known}", f"--python_out={out}", f"--mypy_out=quiet:{out}",
         f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *sources]
    )  # fmt: skip
    if status != 0:
        raise SystemExit(f"protoc failed with status {status}; its message is above")
    for folder in [out / "p2m", *(path for path in (out / "p2m").rglob("*") if path.is_dir())]:
        (folder / "__init__.py").write_text("")


if __name__ == "__main__":
    generate(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE / "gen")
