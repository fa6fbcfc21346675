"""The demo page and the report in a real browser: headless Chromium, no network.

The run's stages do nothing, but for the trainer, which leaves a tiny GPT-2 with random weights; the evaluator that
answers on the page is the real one, started by `p2m demo`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from p2m.common.v1 import common_pb2
from p2m.parser.v1 import parser_pb2
from p2m.trainer.v1 import trainer_pb2

from bench import idle
from orchestrator import report
from services.kit.settings import Settings
from services.kit.wire import to_message
from tests.support.cli import Cli, ended
from tests.support.models import tiny_gpt2
from tests.support.record import sample_record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'


class Parser(idle.IdleParser):
    """Gives the prompt demonstrations, one of them hostile."""

    async def Parse(self, request: Any, context: Any) -> Any:
        shown = [common_pb2.Demonstration(input=text, output="x") for text in ("word3 word7 word1", HOSTILE)]
        spec = common_pb2.PromptSpec(instruction=request.prompt.strip(), demonstrations=shown, language="en")
        return await self.unary(request, parser_pb2.ParseResponse, parser_pb2.ParseResponse(spec=spec))


class Trainer(idle.IdleTrainer):
    """Leaves a model that the evaluator can load."""

    async def Train(self, request: Any, context: Any) -> AsyncIterator[Any]:
        folder = await asyncio.to_thread(tiny_gpt2, self.artifacts.store.root / "tiny")  # type: ignore[attr-defined]
        model = to_message(self.artifacts.put_folder(folder), common_pb2.Artifact)
        async for event in self.stream(
            request, trainer_pb2.TrainResponse, trainer_pb2.TrainResult(model=model, base=model)
        ):
            yield event


@pytest.fixture
async def p2m(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cli]:
    """A command line with a finished run named "toy"."""
    (tmp_path / "prompt.txt").write_text("Write the first word.\n")
    kinds = {"parser": Parser, "trainer": Trainer}
    monkeypatch.setattr(idle, "IDLE", tuple(kinds.get(kind.name, kind) for kind in idle.IDLE))
    async with idle.idle(Settings(home=tmp_path / "home"), Counter()) as targets:
        cli = Cli(tmp_path, targets)
        made = await cli("run", "prompt.txt", "--name", "toy")
        assert made.status == 0, made.err
        del cli.environment["P2M_EVALUATOR_TARGET"]
        yield cli


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """Chromium."""
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        await chromium.close()


@contextlib.asynccontextmanager
async def _served(p2m: Cli, *options: str) -> AsyncIterator[str]:
    """The address of `p2m demo toy`, which is stopped with Ctrl-C and must end with 0."""
    process = await p2m.start("demo", "toy", "--port", "0", *options)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(90):
            line = (await process.stderr.readline()).decode()
        address = re.search(r"http://\S+", line)
        assert address is not None, line + (await process.stderr.read()).decode()
        yield address[0]
        process.send_signal(2)
        stopped = await ended(process)
        assert stopped.status == 0, stopped.err
        assert "Traceback" not in stopped.err
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_demo_page(p2m: Cli, browser: Any, tmp_path: Path) -> None:
    """A click on an example or on the button brings the model's answer; scores and report stand beside; nothing is
    loaded from elsewhere, and nothing that a prompt contains runs."""
    requests: list[str] = []
    problems: list[str] = []
    async with _served(p2m) as address:
        page = await browser.new_page(viewport={"width": 1200, "height": 850})
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        await page.goto(address)
        await page.get_by_text("word3 word7 word1").first.click()
        assert await _value(page, "#input textarea") == "word3 word7 word1"
        answer = await _value(page, "#output textarea")
        assert answer.strip()
        await page.fill("#input textarea", "word5 word1 word2")
        await page.click("#answer")
        await page.wait_for_function("old => document.querySelector('#output textarea').value != old", arg=answer)

        scores = await page.inner_text("#scores")
        assert "Not enough evidence" in scores
        assert await page.get_by_text(HOSTILE[:20]).count() >= 1
        assert await page.locator("img[src=x]").count() == 0

        await page.screenshot(path=_picture(tmp_path, "demo.png"))
        await page.get_by_role("tab", name="Report").click()
        frame = page.frame_locator("#report iframe")
        await frame.locator("#verdict").wait_for()
        assert "Not enough evidence" in await frame.locator("#verdict").inner_text()
        assert await page.title() == "toy · demo"

        await page.get_by_role("tab", name="Try it").click()
        await page.fill("#input textarea", "  ")
        await page.click("#answer")
        await page.get_by_text("Type an input first").wait_for()
    assert problems == []
    assert [url for url in requests if not url.startswith((address, "data:", "blob:", "about:"))] == []


async def test_a_password_is_asked_for(p2m: Cli, browser: Any) -> None:
    """Without the password there is neither page nor report; with it there is."""
    async with _served(p2m, "--password", "sesame") as address:
        page = await browser.new_page()
        await page.goto(address)
        await page.get_by_label("username").wait_for()
        assert "Not enough evidence" not in await page.content()
        refused = await page.request.get(f"{address}config")
        assert refused.status == 401
        await page.get_by_label("username").fill("p2m")
        await page.get_by_label("password").fill("sesame")
        await page.get_by_role("button", name="Login").click()
        await page.locator("#scores").wait_for()


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (375, "dark")])
async def test_the_report_in_a_browser(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    """The report fits a screen and a phone, loads nothing, runs nothing, and its charts are drawn."""
    record = sample_record()
    record["samples"][0]["input"] = HOSTILE
    path = report.write(tmp_path, record)
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    await page.goto(path.as_uri())
    assert requests == [path.as_uri()]
    assert await page.title() == "normalise-dates · Ship"
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert await page.locator("#scores svg.interval").count() == 16
    dots = await page.eval_on_selector_all(
        "#scores svg.interval", "all => all.map(svg => svg.getBoundingClientRect().width)"
    )
    assert min(dots) > 100
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 21, 19)") == (scheme == "dark")
    await page.screenshot(path=_picture(tmp_path, f"report-{scheme}.png"), full_page=True)


async def _value(page: Any, selector: str) -> str:
    """The text of a box, once there is one."""
    await page.wait_for_function("selector => document.querySelector(selector)?.value", arg=selector, timeout=60_000)
    return str(await page.input_value(selector))


def _picture(folder: Path, name: str) -> Path:
    """Where a screenshot goes: the test's folder, or P2M_PICTURES, for looking at."""
    return Path(os.environ.get("P2M_PICTURES") or folder) / name
