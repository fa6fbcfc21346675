"""The started stack, as the container test sees it: compose, its containers, and a driver inside of its network."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECT = "p2m-test"
DRIVER = f"{PROJECT}-driver"
# Planted where a person's own key would be; it must show up nowhere but in the files of those who use it.
KEY = "sk-planted-0f4b9d"


class Stack:
    """Commands on the stack; each raises AssertionError with what was said where it fails."""

    def __init__(self, models: Path) -> None:
        files = os.environ.get("COMPOSE_FILE", "docker-compose.yml")
        self._environment = os.environ | {
            "COMPOSE_FILE": f"{files}:tests/e2e/compose.test.yml", "COMPOSE_PROJECT_NAME": PROJECT,
            "TEST_MODELS": str(models), "OPENAI_BASE_URL": "http://teacher:8080/v1", "OPENAI_API_KEY": KEY,
            "P2M_HUB_OFFLINE": "true", "P2M_METRICS_PORT": "9464", "TRAINER_MEMORY": "4g", "EVALUATOR_MEMORY": "4g",
        }  # fmt: skip

    def docker(self, *arguments: str, timeout_s: float = 120) -> str:
        """`docker ...`; its standard output."""
        ended = subprocess.run(
            ["docker", *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"docker {' '.join(arguments)}\n{(ended.stdout + ended.stderr)[-5000:]}"
        return ended.stdout

    def compose(self, *arguments: str, timeout_s: float = 300) -> str:
        """`docker compose ...`."""
        return self.docker("compose", *arguments, timeout_s=timeout_s)

    def up(self, *arguments: str, timeout_s: float = 300) -> None:
        """`docker compose up --wait ...`; where a part does not become healthy, what it and the others said."""
        try:
            self.compose("up", "--wait", *arguments, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.compose('logs', '--tail', '15')}") from None

    def containers(self, service: str) -> list[str]:
        """The ids of a service's running containers."""
        return self.compose("ps", "-q", service).split()

    def drive(self, *arguments: str, timeout_s: float = 400) -> Any:
        """`python -m tests.e2e.driver ...` from inside of the network; what it printed last."""
        said = self.docker("exec", DRIVER, "python", "-m", "tests.e2e.driver", *arguments, timeout_s=timeout_s)
        return json.loads(said.splitlines()[-1])

    @contextmanager
    def watching(self, seconds: int, *hosts: str) -> Iterator[Iterator[tuple[float, list[Any]]]]:
        """The replicas' metrics, every half second, for so long at most."""
        process = subprocess.Popen(
            ["docker", "exec", DRIVER, "python", "-m", "tests.e2e.driver", "watch", str(seconds), *hosts],
            env=self._environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            yield ((line[0], line[1]) for line in map(json.loads, process.stdout))
        finally:
            process.kill()
            process.wait()

    def start_driver(self) -> None:
        """A container of the client's, with this repository's tests, that waits to be used."""
        self.compose(
            "run", "-d", "--no-deps", "--name", DRIVER, "-v", f"{ROOT}/tests:/app/tests:ro", "--entrypoint", "sleep",
            "p2m", "infinity",
        )  # fmt: skip

    def down(self) -> None:
        """Everything away, volumes too."""
        subprocess.run(["docker", "rm", "-f", DRIVER], capture_output=True, check=False)
        self.compose("--profile", "demo", "--profile", "tools", "down", "--volumes", "--timeout", "20")


def until(reached: Callable[[], Any], within_s: float, what: str) -> Any:
    """What `reached` gave, as soon as it is true of something. AssertionError that says what was waited for."""
    ends = time.monotonic() + within_s
    while not (value := reached()):
        assert time.monotonic() < ends, f"waited {within_s:.0f} s in vain for {what}"
        time.sleep(0.3)
    return value
