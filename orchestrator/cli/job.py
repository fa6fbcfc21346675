"""A run as the options of `p2m run` describe it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.cli.shared import check_name
from services.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from p2m.run.v1.run_pb2 import RunOptions

    from orchestrator.commands import Job


def job_of(prompt: str, given: dict[str, Any]) -> Job:
    """The run that the options describe."""
    from p2m.common.v1 import common_pb2
    from p2m.run.v1 import run_pb2

    from orchestrator import amounts, mixing
    from orchestrator.commands import Job
    from services.kit.wire import to_message

    check_name(given["name"])
    options = run_pb2.RunOptions(
        skip_datasets="datasets" in given["skip"],
        skip_generation="generate" in given["skip"],
        dataset=given["dataset"],
        model=given["model"],
        lora=given["lora"],
        qlora=given["qlora"],
        head="" if given["head"] == "auto" else given["head"],
        ask=given["ask"],
        adapt=given["adapt"],
        prefer=common_pb2.Prefer.Value(f"PREFER_{(given['prefer'] or 'unspecified').upper()}"),
        mix=mixing.weights(given["mix"]),
        caps=mixing.caps(given["caps"]),
        keep_near_duplicates=given["keep_near_duplicates"],
        judge=given["judge"],
    )
    if given["attributes"]:
        from orchestrator import attributes

        options.attributes.CopyFrom(attributes.read(given["attributes"]))
    constrain(options, given)
    if given["export_formats"] is not None:
        from orchestrator import exports

        options.export_formats.extend(one.strip() for one in given["export_formats"].split(",") if one.strip())
        exports.check([*options.export_formats])
    plain = {
        "number": given["number"], "learning_rate": given["learning_rate"], "epochs": given["epochs"],
        "batch_tokens": given["batch_tokens"], "seed": given["seed"], "teacher_rows": given["teacher_rows"],
        "max_rows_per_source": given["max_rows"],
        "max_train_seconds": amounts.duration(given["max_train_time"]) if given["max_train_time"] else None,
        "search_seconds": amounts.duration(given["search"]) if given["search"] is not None else None,
        "attribution_seconds": amounts.duration(given["attribution"]) if given["attribution"] is not None else None,
    }  # fmt: skip
    for name, value in plain.items():
        if value is not None:
            setattr(options, name, value)
    if given["budget"]:
        options.budget.CopyFrom(to_message(amounts.budget(given["budget"]), common_pb2.Allowance))
    if options.skip_generation and options.skip_datasets and not given["data"]:
        raise InvalidArgument(
            "NOTHING_TO_TRAIN_ON",
            "Both --skip datasets and --skip generate leave nothing to train on: give --data PATH.",
        )
    return Job(
        prompt, options, given["name"], given["new"], list(given["data"]), given["test"], given["out"],
        given["connect"], given["as_json"],
    )  # fmt: skip


def constrain(options: RunOptions, given: dict[str, Any]) -> None:
    """Sets what is asked of the model and the dataset. InvalidArgument for what cannot be."""
    from orchestrator import amounts, constraints

    options.include_gated = given["include_gated"]
    options.licence = _word(given["licence"], "--licence", "permissive, commercial, or an id such as apache-2.0")
    options.dataset_task = _word(
        given["dataset_task"], "--dataset-task", "a task of the hub, such as text-classification"
    )
    if given["languages"] is not None:
        options.languages.extend(constraints.codes(given["languages"].split(",")))
    if given["max_size"]:
        options.max_model_bytes = amounts.size(given["max_size"])
    if given["dataset_max_size"]:
        options.max_dataset_bytes = amounts.size(given["dataset_max_size"])
    if given["cpu_latency"]:
        options.max_cpu_latency_ms = amounts.latency(given["cpu_latency"])
    constraints.check(options)


def _word(given: str | None, option: str, wanted: str) -> str:
    """A word in lower case; "" where none was typed."""
    if given is not None and not given.strip():
        raise InvalidArgument("BAD_OPTION", f"{option} is empty; wanted {wanted}.")
    return (given or "").strip().lower()
