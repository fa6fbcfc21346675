"""What is done with a finished run's model: demo, export, serve."""

from __future__ import annotations

from pathlib import Path

import click

from orchestrator.cli.shared import as_json_line, connecting, execute


@click.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at; 0.0.0.0 shows it to others.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: the first free one from 7860 on; 0: any.")
@click.option("--share", is_flag=True, help="Also a public address, through gradio.live. Set a password.")
@click.option(
    "--password",
    metavar="WORD",
    help='Ask for it; the user is "p2m". Better: the variable P2M_DEMO_PASSWORD.',
    envvar="P2M_DEMO_PASSWORD",
)
@connecting
def demo(run: str, host: str, port: int | None, share: bool, password: str | None, connect: str) -> int:
    """Try a finished run's model on a page in the browser.

    \b
    Example:
      p2m demo normalise-dates
    """
    from orchestrator import demo as page

    wanted = page.Page(run, host, port, share, password or "", connect)
    return execute(lambda terminal, settings: page.serve(terminal, settings, wanted))


@click.command()
@click.argument("run")
@click.option(
    "--format",
    "written_as",
    type=click.Choice(["ctranslate2-int8", "onnx-int8", "onnx", "safetensors-bf16"]),
    required=True,
    help="onnx takes every model; ctranslate2-int8 T5, BART, Marian, GPT-2, Llama and their like.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write.")
@connecting
@as_json_line
def export(run: str, written_as: str, out: Path, connect: str, as_json: bool) -> int:
    """Write a finished run's model in another format, and measure it.

    \b
    Example:
      p2m export normalise-dates --format onnx-int8 --out dates-onnx
    """
    from orchestrator import export_command

    wanted = export_command.Wanted(run, written_as, out, connect, as_json)
    return execute(lambda terminal, settings: export_command.export(terminal, settings, wanted))


@click.command()
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at; 0.0.0.0 shows it to others.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--format",
    "served",
    default="",
    metavar="FORMAT",
    help="model (as trained), onnx-int8, ...; default: the fastest that is hardly worse than the model as trained.",
)
@click.option(
    "--token",
    metavar="WORD",
    help="Ask for it as a bearer token, and on the page as a password. Better: the variable P2M_SERVE_TOKEN.",
    envvar="P2M_SERVE_TOKEN",
)
@click.option("--page/--no-page", default=True, help="The demo's page too, at /.")
@connecting
def serve(run: str, host: str, port: int, served: str, token: str | None, page: bool, connect: str) -> int:
    """Serve a finished run's model: a REST service and a page.

    RUN is a run's name or its folder. A folder is all that is needed, on any machine: pip install 'p2m[serve]'.

    \b
    Examples:
      p2m serve runs/normalise-dates
      curl -s localhost:8000/v1/predict -H 'content-type: application/json' -d '{"inputs": ["on 5 May"]}'
    """
    from orchestrator import serving

    wanted = serving.Wanted(run, host, port, served, token or "", page, connect)
    return execute(lambda terminal, settings: serving.serve(terminal, settings, wanted))
