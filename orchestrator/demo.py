"""The demo: a page in the browser where a run's model answers.

    serve(terminal, settings, page)     `p2m demo RUN`, until stopped
    build(record, report, predict)      the Gradio page itself

It shows input and output, the prompt's demonstrations as clickable examples, the scores with their intervals and
the verdict beside them, and the whole report. Answers come from the evaluator's Predict. Nothing on the page is loaded
from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import ParseDict
from markupsafe import Markup, escape
from p2m.common.v1 import common_pb2
from p2m.evaluator.v1 import evaluator_pb2, evaluator_pb2_grpc

from orchestrator import results
from orchestrator.report import MAIN_METRIC, score_panels, verdict_of
from orchestrator.report.style import COLOURS, SCORES
from orchestrator.session import reached, services
from orchestrator.terminal import DONE, Terminal
from services.kit.channel import dial, stream
from services.kit.errors import FailedPrecondition, P2MError
from services.kit.refused import refused
from services.kit.settings import Settings, port_of
from services.kit.tokens import Tokens

USER = "p2m"
MAX_INPUT_CHARACTERS = 20_000
_PREDICT_TIMEOUT_S = 300.0
_PORTS = range(7860, 7960)
Predict = Callable[[str], Awaitable[str]]
Guard = Callable[[str, str], bool]

_SIDE_STYLE = """
.p2m svg { max-width: none; } .p2m h4 { margin: .9rem 0 .3rem; font-size: .95rem; }
.p2m .verdict { margin: 0 0 .6rem; } .p2m .verdict strong { color: inherit; }
.p2m .score { grid-template-columns: 1fr auto; grid-template-areas: "who value" "plot plot"; }
.p2m .soft { color: var(--soft); font-size: .86rem; }
"""


@dataclass(frozen=True)
class Page:
    """What `p2m demo` was asked for. `port` None: the first free one from 7860 on; 0: any."""

    run: str
    host: str = "127.0.0.1"
    port: int | None = None
    share: bool = False
    password: str = ""
    connect: str = ""


async def serve(terminal: Terminal, settings: Settings, page: Page) -> int:
    """Serves the page until the person stops it."""
    async with reached(page.connect, settings) as client:
        run = await client.get(page.run)
    record = await asyncio.to_thread(results.record, settings, run)
    report = (await asyncio.to_thread(results.read, settings, run, "report.html")).decode()
    async with _evaluator(settings, page.connect) as target:
        channel = dial(target, settings)
        try:
            blocks = build(record, report, predictor(evaluator_pb2_grpc.EvaluatorServiceStub(channel), record))
            guard = guarded(page.password, settings, run.owner)
            local, shared = await asyncio.to_thread(launch, blocks, page, guard)
            terminal.say(f"The demo of {run.name} is at {local}")
            if page.share:
                terminal.say(
                    f"For everybody: {shared}" if shared else "gradio.live cannot be reached: no public address."
                )
            if page.password:
                terminal.say(f'The user is "{USER}".')
            elif guard:
                terminal.say("It asks for a name and its token.")
            elif page.share or page.host not in ("127.0.0.1", "localhost", "::1"):
                terminal.say("Everybody who reaches it can use it: --password asks for a word.")
            terminal.say("Ctrl-C stops it.")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()
            finally:
                await asyncio.to_thread(blocks.close, False)
        finally:
            await channel.close()
    return DONE


def predictor(stub: Any, record: dict[str, Any]) -> Predict:
    """A function that has the run's model answer one input. It may be awaited from any event loop."""
    loop = asyncio.get_running_loop()
    model = ParseDict(record["artifacts"]["model"], common_pb2.Artifact())
    spec = ParseDict(
        {key: record["spec"][key] for key in ("instruction", "demonstrations", "language", "original_instruction")},
        common_pb2.PromptSpec(),
    )

    async def call(text: str) -> str:
        request = evaluator_pb2.PredictRequest(model=model, spec=spec, inputs=[text])
        result = await stream(stub.Predict, request, timeout_s=_PREDICT_TIMEOUT_S)
        return str(result.outputs[0])

    async def predict(text: str) -> str:
        # gRPC's channel belongs to the loop that made it; Gradio's handlers run in another one.
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(text), loop))

    return predict


def build(record: dict[str, Any], report: str, predict: Predict) -> Any:
    """The Gradio page of a run."""
    gr = _gradio()
    spec = record["spec"]
    instruction = spec.get("original_instruction") or spec["instruction"]

    async def answer(text: str) -> str:
        if not text.strip():
            raise gr.Error("Type an input first.", print_exception=False)
        if len(text) > MAX_INPUT_CHARACTERS:
            raise gr.Error(
                f"That is {len(text):,} characters; at most {MAX_INPUT_CHARACTERS:,}.", print_exception=False
            )
        try:
            answered = await predict(text)
        except P2MError as error:
            raise gr.Error(str(escape(error.message)), print_exception=False) from error
        if not answered:
            gr.Info("The model's answer is empty.")
        return answered

    with gr.Blocks(title=f"{record['name']} · demo", analytics_enabled=False) as page:
        gr.HTML(
            Markup('<h1 style="margin:.2rem 0;overflow-wrap:anywhere">{}</h1>').format(record["name"])
            + Markup('<p style="white-space:pre-wrap;opacity:.75;margin:0">{}</p>').format(_short(instruction))
        )
        with gr.Tab("Try it"), gr.Row():
            with gr.Column(scale=3, min_width=320):
                given = gr.Textbox(label="Input", lines=4, max_lines=14, autofocus=True, elem_id="input")
                button = gr.Button("Answer", variant="primary", elem_id="answer")
                output = gr.Textbox(
                    label="Output", lines=3, max_lines=14, interactive=False, buttons=["copy"], elem_id="output"
                )
                demonstrations = [[shown["input"]] for shown in spec.get("demonstrations") or []]
                if demonstrations:
                    gr.Examples(
                        demonstrations,
                        inputs=[given],
                        outputs=[output],
                        fn=answer,
                        run_on_click=True,
                        cache_examples=False,
                        label="Examples from the prompt",
                        examples_per_page=8,
                    )
            with gr.Column(scale=2, min_width=300):
                gr.HTML(_side(record), elem_id="scores")
        with gr.Tab("Report"):
            # A sandbox without rights: the report needs no script, and nothing in it can run one.
            gr.HTML(
                Markup(
                    '<iframe sandbox srcdoc="{}" title="Report" style="width:100%;height:82vh;border:0"></iframe>'
                ).format(report),
                elem_id="report",
            )
        gr.on([button.click, given.submit], answer, [given], [output], api_name="predict", concurrency_limit=4)
    return page


def guarded(password: str, settings: Settings | None = None, owner: str = "") -> Guard | None:
    """Who may see the page: the user p2m with the password, and with its token whoever started the run; None: all.

    P2M_TOKENS names the tokens; the one without a name (P2M_TOKEN) is good for the user p2m. A run that nobody is known
    to have started is shown to that one alone.
    """
    tokens = Tokens(settings) if settings is not None and settings.tokens else None
    if not password and tokens is None:
        return None

    def right(user: str, word: str) -> bool:
        known = bool(password) and user == USER and hmac.compare_digest(word.encode(), password.encode())
        caller = tokens.caller(word) if tokens is not None else None
        known = known or (caller is not None and user == (caller.name or USER) and caller.may_touch(owner))
        if not known:
            refused("BAD_PASSWORD", "the page", part="demo")
        return known

    return right


def launch(blocks: Any, page: Page, guard: Guard | None = None) -> tuple[str, str | None]:
    """Starts serving in a thread; returns the local and, where asked for and possible, the public address."""
    gr = _gradio()
    port = page.port if page.port is not None else next((p for p in _PORTS if _free(page.host, p)), 0)
    if port and not _free(page.host, port):
        raise FailedPrecondition("PORT_TAKEN", f"Port {port} of {page.host} cannot be used: is it taken? Try --port 0.")
    _, local, shared = blocks.queue(max_size=64).launch(
        server_name=page.host,
        server_port=port or _any_port(page.host),
        share=page.share,
        auth=guard,
        prevent_thread_lock=True,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        theme=_theme(gr),
    )
    return str(local), shared


def mounted(app: Any, blocks: Any, password: str) -> Any:
    """The FastAPI application `app` with the page at /; with a password it asks for it."""
    gr = _gradio()
    blocks.queue(max_size=64)
    return gr.mount_gradio_app(
        app, blocks, path="/", auth=guarded(password), footer_links=[], ssr_mode=False,
        theme=_theme(gr), max_file_size="1mb",
    )  # fmt: skip


def _theme(gr: Any) -> Any:
    """The fonts that are there: none is fetched."""
    font = ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
    return gr.themes.Default(font=font, font_mono=("ui-monospace", "Menlo", "DejaVu Sans Mono", "monospace"))


def _side(record: dict[str, Any]) -> Markup:
    """The verdict and the scores."""
    verdict = verdict_of(record)
    parts = [
        Markup("<style>{}</style>").format(Markup(COLOURS.replace(":root", ".p2m") + _scoped(SCORES) + _SIDE_STYLE)),
        Markup(
            '<div class="p2m"><div class="verdict {style}"><strong>{glyph} {word}</strong><p>{reason}</p></div>'
        ).format(**verdict),
    ]
    for panel in score_panels(record):
        if panel["metric"] not in (MAIN_METRIC, "chrf"):
            continue
        parts.append(Markup("<h4>{}</h4>").format(panel["title"]))
        parts += [
            Markup(
                '<div class="score"><div class="who {style}">{who}</div><div class="plot">{chart}</div>'
                '<div class="value">{value} <span>{range}</span></div></div>'
            ).format(**row)
            for row in panel["rows"]
        ]
        parts.append(Markup('<div class="score"><div class="plot">{}</div></div>').format(panel["axis"]))
    if len(parts) > 2:
        parts.append(Markup('<p class="soft">Percentages with 95 % intervals, on rows that were not trained on.</p>'))
    parts.append(Markup("</div>"))
    return Markup("").join(parts)


def _scoped(style: str) -> str:
    """The style sheet for what is inside .p2m alone, by CSS nesting."""
    return ".p2m {" + style + "}"


@contextlib.asynccontextmanager
async def _evaluator(settings: Settings, connect: str) -> AsyncIterator[str]:
    """Where Predict is: the evaluator that is set, the one beside the RunService there, else one started here."""
    if settings.evaluator_target or connect:
        host = connect.rpartition(":")[0]
        yield settings.evaluator_target or f"{host}:{port_of('evaluator')}"
        return
    async with services(settings, "evaluator") as targets:
        yield targets["evaluator"]


def _gradio() -> Any:
    """Gradio, told before its import not to report home."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio

    return gradio


def _short(text: str) -> str:
    return text if len(text) <= 600 else text[:600] + " …"


def _free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _any_port(host: str) -> int:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            raise FailedPrecondition(
                "BAD_HOST", f"The address {host} cannot be served at: {error.strerror}."
            ) from error
        return int(probe.getsockname()[1])
