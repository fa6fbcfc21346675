"""The command line: its help, its options, its errors, and runs of services that do nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import click
import pytest

from bench.idle import idle
from orchestrator import amounts, estimate
from orchestrator.__main__ import cli
from orchestrator.cli.job import job_of
from orchestrator.inputs import check_out
from services.kit.errors import InvalidArgument
from services.kit.settings import Settings
from services.kit.values import Allowance, Ledger
from tests.conftest import ROOT
from tests.support.cli import Cli, ended

PROMPT = "Say the first word.\n"


@pytest.fixture
def p2m(tmp_path: Path) -> Cli:
    """The command line in an empty folder."""
    (tmp_path / "prompt.txt").write_text(PROMPT)
    return Cli(tmp_path)


@pytest.fixture
def calls() -> Counter[str]:
    """How often each stage was called."""
    return Counter()


@pytest.fixture
async def idle_p2m(tmp_path: Path, calls: Counter[str]) -> AsyncIterator[Cli]:
    """The command line, with six services whose stages do nothing."""
    (tmp_path / "prompt.txt").write_text(PROMPT)
    async with idle(Settings(home=tmp_path / "home"), calls) as targets:
        yield Cli(tmp_path, targets)


def _commands() -> list[tuple[str, ...]]:
    groups = [((name,), command) for name, command in cli.commands.items()]
    groups += [(("catalogue", name), command) for name, command in cli.commands["catalogue"].commands.items()]  # type: ignore[attr-defined]
    return [path for path, command in groups if not isinstance(command, click.Group)]


# -- help


async def test_help_answers_within_half_a_second(p2m: Cli) -> None:
    """`p2m --help` names every command and takes less than 0.5 s, since it imports nothing that a run needs."""
    took = []
    for _ in range(3):
        began = time.monotonic()
        help_text = await p2m("--help")
        took.append(time.monotonic() - began)
    assert help_text.status == 0
    assert all(
        name in help_text.out
        for name in ("run", "watch", "list", "show", "cancel", "choose", "demo", "catalogue", "up")
    )
    assert min(took) < 0.5


async def test_help_imports_only_click(p2m: Cli) -> None:
    """Asking for help loads neither gRPC nor pydantic nor anything heavier."""
    code = (
        "import sys; sys.argv = ['p2m', 'run', '--help']\n"
        "from orchestrator.__main__ import main\n"
        "main(); print([name for name in ('grpc', 'pydantic', 'rich', 'torch', 'google.protobuf')"
        " if name in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, env=p2m.environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize("path", _commands(), ids=" ".join)
def test_every_command_has_an_example(path: tuple[str, ...]) -> None:
    """Each command's help says what it does and shows a line that can be typed."""
    command: click.Command = cli
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    text = command.get_help(click.Context(command, info_name=" ".join(("p2m", *path))))
    assert f"p2m {' '.join(path)}" in text.split("Example", 1)[1]


# -- options


def test_options_become_the_runs_options() -> None:
    """What is typed is what is sent; what is not typed stays unset, so that the services' defaults hold."""
    run = cli.commands["run"]
    typed = (
        "p.txt --name n --number 40 --skip datasets --max-size 1.5GB --learning-rate 2e-4 --epochs 2 "
        "--batch-tokens 512 --max-train-time 1h30m --lora --seed 7 --budget 2,200requests --budget 600rpm "
        "--teacher-rows 0 --model m --ask --licence Permissive --languages ja,English,ja --cpu-latency 0.05s "
        "--dataset-max-size 2GB --dataset-task summarization --include-gated --head labels"
    )
    context = run.make_context("run", typed.split())
    context.params.pop("prompt_file"), context.params.pop("dry_run")
    options = job_of(PROMPT, context.params).options
    assert (options.number, options.skip_datasets, options.skip_generation, options.lora, options.ask) == (
        40,
        True,
        False,
        True,
        True,
    )
    assert (options.max_model_bytes, options.max_train_seconds, options.batch_tokens) == (1_500_000_000, 5400.0, 512)
    assert (options.learning_rate, options.epochs, options.seed, options.model) == (2e-4, 2.0, 7, "m")
    assert options.head == "labels"
    assert (options.budget.dollars, options.budget.requests, options.budget.requests_per_minute) == (2.0, 200, 600)
    assert (options.licence, [*options.languages], options.max_cpu_latency_ms) == ("permissive", ["ja", "en"], 50.0)
    assert (options.max_dataset_bytes, options.dataset_task, options.include_gated) == (
        2_000_000_000,
        "summarization",
        True,
    )
    assert options.HasField("teacher_rows") and not options.budget.HasField("tokens")

    bare = run.make_context("run", ["p.txt"])
    bare.params.pop("prompt_file"), bare.params.pop("dry_run")
    assert job_of(PROMPT, bare.params).options.ByteSize() == 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["2"], Allowance(dollars=2.0)),
        (["$0.50"], Allowance(dollars=0.5)),
        (["0"], Allowance(dollars=0.0)),
        (["200requests", "50k tokens"], Allowance(requests=200, tokens=50_000)),
        (["1 request, 90000tpm"], Allowance(requests=1, tokens_per_minute=90_000)),
    ],
)
def test_a_budget_is_read(given: list[str], wanted: Allowance) -> None:
    """Dollars, requests, tokens and rates, apart or joined by commas."""
    assert amounts.budget(given) == wanted


@pytest.mark.parametrize("given", ["", "-1", "two", "2,3", "3x", "$4tokens", "1e400requests", "nan"])
def test_a_wrong_budget_says_what_is_wanted(given: str) -> None:
    """A budget that is not understood is refused, never taken for something else."""
    with pytest.raises(InvalidArgument, match="budget"):
        amounts.budget([given])


@pytest.mark.parametrize(
    ("given", "wanted"), [("300MB", 300_000_000), ("1.5 GiB", 1_610_612_736), ("12", 12), ("2kb", 2000)]
)
def test_a_size_is_read(given: str, wanted: int) -> None:
    """Decimal and binary units, and bare bytes."""
    assert amounts.size(given) == wanted


@pytest.mark.parametrize(("given", "wanted"), [("50ms", 50.0), ("0.2 s", 200.0), ("1_500MS", 1500.0)])
def test_a_latency_is_read(given: str, wanted: float) -> None:
    """Milliseconds and seconds; a bare number could be either and is refused."""
    assert amounts.latency(given) == wanted
    with pytest.raises(InvalidArgument, match="50ms"):
        amounts.latency(given.rstrip("msMS "))


@pytest.mark.parametrize(("given", "wanted"), [("5m", 300), ("90s", 90), ("90", 90), ("1h30m", 5400), ("0.5h", 1800)])
def test_a_duration_is_read(given: str, wanted: float) -> None:
    """Hours, minutes and seconds, alone or together."""
    assert amounts.duration(given) == wanted


@pytest.mark.parametrize("given", ["", "m", "5x", "-5m", "1m1h"])
def test_a_wrong_duration_is_refused(given: str) -> None:
    """What is not understood is refused."""
    with pytest.raises(InvalidArgument, match="5m"):
        amounts.duration(given)


def test_amounts_are_readable() -> None:
    """Times, sizes, money and ledgers are written for people."""
    assert [amounts.seconds_text(s) for s in (0.04, 42, 200, 3900)] == ["0.0 s", "42 s", "3 min 20 s", "1 h 5 min"]
    assert [amounts.bytes_text(b) for b in (12, 91_000_000, 1_200_000_000)] == ["12 B", "91 MB", "1.2 GB"]
    assert [amounts.dollars_text(d) for d in (0, 0.00042, 0.13, 12.5)] == ["$0", "$0.00042", "$0.13", "$12.50"]
    assert amounts.spend_text(Ledger(1, 400, 100, 0.002)) == "1 request, 500 tokens, $0.0020"
    assert amounts.spend_text(Ledger()) == ""


# -- errors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b" \n\t", "empty"),
        (b"a\0b", "NUL"),
        (b"caf\xe9", "UTF-8"),
        (b"a" * 1_000_001, "longer than 1,000,000 bytes"),
        (None, "no prompt file"),
    ],
    ids=["empty", "blank", "nul", "latin-1", "1MB", "missing"],
)
async def test_a_bad_prompt_is_refused_before_anything_starts(p2m: Cli, content: bytes | None, said: str) -> None:
    """Exit status 2, one clear line, no traceback, nothing on standard output."""
    if content is not None:
        (p2m.folder / "bad.txt").write_bytes(content)
    refused = await p2m("run", "bad.txt")
    assert (refused.status, refused.out, refused.err.count("\n")) == (2, "", 1)
    assert said in refused.err and "bad.txt" in refused.err
    assert not p2m.home.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("run",), 2, "No prompt"),
        (("run", "prompt.txt", "--budget", "lots"), 2, "budget 'lots'"),
        (("run", "prompt.txt", "--max-size", "big"), 2, "300MB"),
        (("run", "prompt.txt", "--max-size", "9" * 500), 2, "300MB"),
        (("run", "prompt.txt", "--dataset-max-size", "0"), 2, "300MB"),
        (("run", "prompt.txt", "--cpu-latency", "50"), 2, "50ms"),
        (("run", "prompt.txt", "--licence", "free"), 2, "permissive, commercial"),
        (("run", "prompt.txt", "--licence", ""), 2, "permissive, commercial"),
        (("run", "prompt.txt", "--languages", "klingon"), 2, "en or ja"),
        (("run", "prompt.txt", "--languages", ","), 2, "en or ja"),
        (("run", "prompt.txt", "--dataset-task", "make it short"), 2, "text-classification"),
        (("run", "prompt.txt", "--name", "../x"), 2, "name"),
        (("run", "prompt.txt", "--epochs", "0"), 2, "--epochs"),
        (("run", "prompt.txt", "--skip", "datasets", "--skip", "generate"), 2, "--data"),
        (("run", "prompt.txt", "--data", "none.csv"), 2, "none.csv"),
        (("run", "prompt.txt", "--data", "bad.jsonl"), 2, "bad.jsonl, line 2"),
        (("run", "prompt.txt", "--data", "bad.jsonl", "--connect", "127.0.0.1:9"), 2, "P2M_STORE"),
        (("run", "prompt.txt", "--connect", "127.0.0.1:9"), 4, "Nobody answers at 127.0.0.1:9"),
        (("list", "--connect", "127.0.0.1:9"), 4, "Nobody answers"),
        (("run", "prompt.txt", "--out", "full"), 2, "holds other files"),
        (("show", "nosuch"), 2, "nosuch"),
        (("watch", "nosuch"), 2, "nosuch"),
        (("cancel", "nosuch"), 2, "nosuch"),
        (("choose", "nosuch", "model", "x"), 2, "nosuch"),
        (("demo", "nosuch"), 2, "nosuch"),
        (("catalogue", "build", "--models", "none.jsonl"), 2, "none.jsonl"),
        (("frobnicate",), 2, "frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_wrong_usage_is_one_clear_message(p2m: Cli, arguments: tuple[str, ...], status: int, said: str) -> None:
    """Wrong usage and input end with 2, a service out of reach with 4, and never with a traceback."""
    (p2m.folder / "bad.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "a"}\n')
    (p2m.folder / "full").mkdir()
    (p2m.folder / "full" / "thesis.doc").write_text("all of it")
    refused = await p2m(*arguments)
    assert refused.status == status, refused.err
    assert said in refused.err
    assert "Traceback" not in refused.err + refused.out and refused.out == ""
    assert (p2m.folder / "full" / "thesis.doc").read_text() == "all of it"


async def test_a_wrong_setting_is_named(p2m: Cli) -> None:
    """An environment variable of the wrong type is named with what is wrong about it."""
    p2m.environment["P2M_SLOTS"] = "many"
    refused = await p2m("list")
    assert refused.status == 2
    assert "P2M_SLOTS" in refused.err and "Traceback" not in refused.err


async def test_a_bug_leaves_its_traceback_in_the_log(p2m: Cli) -> None:
    """What nobody foresaw is one line on the terminal and whole in the log, as is what libraries and children write."""
    code = (
        "import os, sys\n"
        "from orchestrator.session import execute\n"
        "async def command(terminal, settings):\n"
        "    os.write(1, b'a native library\\n'); os.system('echo a child >&2'); print('a print')\n"
        "    print('the result', file=terminal.out)\n"
        "    raise RuntimeError('the moon')\n"
        "sys.exit(execute(command))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, env=p2m.environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    broken = await ended(process)
    log = (p2m.home / "p2m.log").read_text()
    assert broken.status == 1
    assert broken.out == "the result\n"
    assert broken.err.count("\n") == 1 and "a bug" in broken.err and "RuntimeError: the moon" in broken.err
    assert str(p2m.home / "p2m.log") in broken.err
    assert all(said in log for said in ("Traceback", "a native library", "a child", "a print"))


def test_an_earlier_result_may_be_replaced_and_nothing_else(tmp_path: Path) -> None:
    """--out takes a new folder, an empty one and a run's; it refuses a folder of other files, and a file."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    assert [check_out(tmp_path / name).name for name in ("new", "empty", "run")] == ["new", "empty", "run"]
    for name in ("", "run/run.json"):
        with pytest.raises(InvalidArgument):
            check_out(tmp_path / name)


# -- cost


async def test_a_dry_run_says_the_cost_and_does_nothing(p2m: Cli) -> None:
    """Low, expected and high requests, tokens and dollars for each stage and in all; no run is there afterwards."""
    p2m.environment |= {"OPENAI_BASE_URL": "", "OPENAI_API_KEY": "none", "P2M_LLM": "gpt-4o-mini"}
    told = await p2m("run", "prompt.txt", "--dry-run", "--json", "--number", "500")
    costs = json.loads(told.out)
    assert told.status == 0
    assert set(costs) == {"parse", "datasets", "generate", "models", "evaluate", "total"}
    for levels in costs.values():
        for unit in ("requests", "tokens", "dollars", "dollars_by_batch"):
            assert 0 < levels["low"][unit] <= levels["expected"][unit] <= levels["high"][unit]
    for unit in ("requests", "tokens"):
        assert costs["total"]["high"][unit] == sum(costs[stage]["high"][unit] for stage in costs if stage != "total")
    assert [path.name for path in p2m.home.iterdir()] == ["p2m.log"]
    shown = await p2m("run", "prompt.txt", "--dry-run", "--budget", "2")
    assert shown.status == 0 and "generate" in shown.out and "The budget stops it at $2.00" in shown.out
    assert "Asked of" not in shown.out and "With --prefer cost, by batches, it is $" in shown.out
    by_batch = costs["generate"]["expected"]["dollars_by_batch"]
    assert by_batch == pytest.approx(costs["generate"]["expected"]["dollars"] / 2)
    shown = await p2m("run", "prompt.txt", "--dry-run", "--prefer", "cost")
    assert "That is with --prefer cost" in shown.out
    asked = ("--licence", "permissive", "--languages", "ja,en", "--max-size", "300MB", "--cpu-latency", "50ms")
    shown = await p2m("run", "prompt.txt", "--dry-run", *asked)
    assert "Asked of the model: at most 300 MB, at most 50 ms an answer on a CPU, permissive licence" in shown.out
    assert "Asked of the dataset: permissive licence, in ja or en." in shown.out


def test_what_is_switched_off_costs_nothing() -> None:
    """The estimate has no stage that the run leaves out."""
    run = cli.commands["run"]
    context = run.make_context(
        "run", ["p", "--skip", "generate", "--skip", "datasets", "--data", "x", "--model", "m", "--teacher-rows", "0"]
    )
    context.params.pop("prompt_file"), context.params.pop("dry_run")
    assert set(estimate.estimate(job_of(PROMPT, context.params))) == {"parse"}


# -- runs


async def test_a_run_from_prompt_to_folder(idle_p2m: Cli, calls: Counter[str]) -> None:
    """`p2m run` leaves the folder, says the verdict and what next, and the same command shows it again for nothing."""
    first = await idle_p2m("run", "prompt.txt", "--name", "first")
    folder = idle_p2m.folder / "runs" / "first"
    assert first.status == 0, first.err
    assert first.out == ""
    assert {"model", "data", "report.html", "model_card.md", "run.json", "metrics.json"} <= {
        p.name for p in folder.iterdir()
    }
    assert all(text in first.err for text in ("Verdict: ", "report  runs/first/report.html", "p2m demo first"))
    assert all(
        name in first.err
        for name in ("parse", "datasets", "generate", "models", "prepare", "train", "evaluate", "export", "report")
    )

    before = calls.copy()
    again = await idle_p2m("run", "prompt.txt", "--name", "first", "--json")
    told = json.loads(again.out)
    assert again.status == 0 and again.out.count("\n") == 1
    assert told["name"] == "first" and told["state"] == "succeeded"
    assert Path(told["report"]) == folder / "report.html"
    assert calls == before

    other = await idle_p2m("run", "prompt.txt", "--name", "first", "--seed", "5")
    assert other.status == 2 and "first" in other.err

    listed, shown, watched = [await idle_p2m(*words) for words in (("list",), ("show", "first"), ("watch", "first"))]
    assert listed.status == shown.status == watched.status == 0
    assert "first" in listed.out and "succeeded" in listed.out
    assert "parse" in shown.out and "Verdict" in shown.out
    assert "Verdict" in watched.err
    assert json.loads((await idle_p2m("show", "first", "--json")).out)["stages"][0]["state"] == "done"


async def test_a_hub_out_of_reach_is_said_and_done_without(idle_p2m: Cli) -> None:
    """A hub that does not answer is found out before a run starts, which then goes on with what is on this machine."""
    del idle_p2m.environment["P2M_HUB_OFFLINE"]
    idle_p2m.environment["P2M_HUB_URL"] = "http://127.0.0.1:9"
    made = await idle_p2m("run", "prompt.txt", "--name", "alone")
    assert made.status == 0, made.err
    assert "http://127.0.0.1:9 does not answer" in made.err


async def test_new_starts_another_run(idle_p2m: Cli) -> None:
    """--new with a taken name takes the next free one; the prompt may come from standard input."""
    for out in ("one", "two"):
        made = await idle_p2m("run", "-", "--name", "again", "--new", "--out", out, stdin=PROMPT.encode())
        assert made.status == 0, made.err
        assert (idle_p2m.folder / out / "run.json").is_file()
    names = [json.loads(line)["name"] for line in (await idle_p2m("list", "--json")).out.splitlines()]
    assert sorted(names) == ["again", "again-2"]


async def test_the_users_own_rows_are_taken(idle_p2m: Cli) -> None:
    """--data and --test are read, stored and part of the run."""
    (idle_p2m.folder / "rows.csv").write_text("input,output\na,b\nc,d\n")
    (idle_p2m.folder / "test.jsonl").write_text('{"input": "x", "output": "y", "answers": ["y", "z"]}\n')
    made = await idle_p2m("run", "prompt.txt", "--name", "own", "--data", "rows.csv", "--test", "test.jsonl")
    assert made.status == 0, made.err
    record = json.loads((idle_p2m.folder / "runs" / "own" / "run.json").read_text())
    assert "user-0" in record["artifacts"]


async def test_ctrl_c_stops_and_the_same_command_goes_on(idle_p2m: Cli, calls: Counter[str]) -> None:
    """One Ctrl-C ends with status 3 and says how to go on; what was done is not done again."""
    command = ("run", "prompt.txt", "--name", "asked", "--ask", "--skip", "datasets", "--number", "4")
    process = await idle_p2m.start(*command)
    await _until_it_asks(process)
    process.send_signal(signal.SIGINT)
    stopped = await ended(process)
    assert stopped.status == 3
    assert "Run the same command again" in stopped.err and "Traceback" not in stopped.err
    assert json.loads((await idle_p2m("list", "--json")).out)["state"] == "cancelled"

    done = calls.copy()
    process = await idle_p2m.start(*command)
    await _until_it_asks(process)
    wrong = await idle_p2m("choose", "asked", "model", "nosuch")
    assert wrong.status == 2 and "idle/model" in wrong.err
    assert (await idle_p2m("choose", "asked", "model", "idle/model")).status == 0
    finished = await ended(process)
    assert finished.status == 0, finished.err
    assert done["parser.ParseRequest"] == calls["parser.ParseRequest"] == 1


async def test_a_run_cancelled_from_elsewhere_ends_with_3(idle_p2m: Cli) -> None:
    """`p2m cancel` stops a run of another process, whose `p2m run` says so."""
    process = await idle_p2m.start("run", "prompt.txt", "--name", "asked", "--ask", "--skip", "datasets")
    await _until_it_asks(process)
    assert (await idle_p2m("cancel", "asked")).status == 0
    stopped = await ended(process)
    assert stopped.status == 3 and "cancelled" in stopped.err


async def test_a_run_that_fails_says_where_and_why(idle_p2m: Cli) -> None:
    """A failed run ends with 1, names the stage and the cause, and has no traceback."""
    idle_p2m.environment["P2M_TRAINER_TARGET"] = idle_p2m.environment["P2M_PARSER_TARGET"]
    failed = await idle_p2m("run", "prompt.txt", "--name", "broken")
    assert failed.status == 1, failed.err
    assert "failed in prepare" in failed.err and "Traceback" not in failed.err
    shown = await idle_p2m("show", "broken")
    assert shown.status == 0 and "It failed" in shown.out


async def test_a_reader_that_goes_away_is_no_error(idle_p2m: Cli) -> None:
    """`p2m list | head -1` shows no traceback."""
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "orchestrator", "run", "prompt.txt", "--dry-run",
        cwd=idle_p2m.folder, env=idle_p2m.environment, stdout=write, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(write)
    _, err = await process.communicate()
    assert err.decode() == ""


async def _until_it_asks(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"From elsewhere" not in await process.stderr.readline():
            assert not process.stderr.at_eof(), "it ended without asking"
        await process.stderr.readline()
