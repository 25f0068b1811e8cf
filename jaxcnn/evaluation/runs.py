"""Runs in a table, or as JSON: what differs from their preset, and how far they have come."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.presets import PRESETS
from jaxcnn.workdir.listing import Run

RIGHT = ("seed", "accuracy", "training set", "steps", "time")  # columns of numbers


def differences(config: TrainConfig) -> dict[str, Any]:
    """Return the fields in which a run differs from its preset, without the seed.

    The fields of a run without a preset are compared with the defaults of `TrainConfig`. Fields
    that do not change a run's numbers, such as its folder, are left out.
    """
    base = PRESETS[config.preset].config if config.preset in PRESETS else TrainConfig()
    differing = configs.differences(config, base)
    return {name: ours for name, (ours, _) in differing.items() if name != "seed"}


def label(config: TrainConfig) -> str:
    """Return the preset of a run and the fields in which the run differs from it."""
    values = [f"{_short(name)}={_text(value)}" for name, value in differences(config).items()]
    return " ".join([config.preset, *values])


def print_runs(runs: Sequence[Run]) -> None:
    """Print a table of runs, or two lines each where it is too wide; then what is damaged."""
    console, rows = report.console, [_cells(run) for run in runs]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for name in rows[0]:
        if name != "training set" or any(row[name] for row in rows):
            table.add_column(name, justify="right" if name in RIGHT else "left")
    for row in rows:
        table.add_row(*(escape(row[str(column.header)]) for column in table.columns))
    unlimited = console.options.update(max_width=10_000)
    table.width = console.measure(table, options=unlimited).maximum
    if table.width <= console.width or not (console.is_terminal or "COLUMNS" in os.environ):
        console.print(table, soft_wrap=True)  # in a pipe each run has one line
    else:
        for row in rows:
            report.say(row["run"])
            training = f"training set {row['training set']}" if row["training set"] else ""
            facts = row["state"], row["accuracy"], training, f"step {row['steps']}", row["time"]
            report.say("    " + ", ".join(filter(None, facts)))
    if any(run.measured_on() == "validation" for run in runs):
        report.say("* on the validation split, because the run has not been tested yet")
    for run in runs:
        if run.state == "damaged":
            report.say(f"damaged: {run.problem}")


def _cells(run: Run) -> dict[str, str]:
    accuracy, training, config = run.accuracy(), run.train_eval_accuracy(), run.config
    mark = "*" if run.measured_on() == "validation" else ""
    total = f"{run.total_steps:,}" if run.total_steps else "?"
    return {
        "run": str(run.path),
        "preset and what differs": label(config) if config else "",
        "seed": str(config.seed) if config else "",
        "accuracy": "" if accuracy is None else f"{accuracy:.2%}{mark}",
        "training set": "" if training is None else f"{training:.2%}",
        "steps": f"{run.step:,}" if run.step == run.total_steps else f"{run.step:,} of {total}",
        "time": "" if run.seconds is None else report.duration(run.seconds),
        "state": run.state,
    }


def to_record(run: Run) -> dict[str, Any]:
    """Return a run as JSON types."""
    config = run.config
    return {
        "path": os.path.abspath(run.path),
        "state": run.state,
        "preset": config and config.preset,
        "model": config and config.model,
        "dataset": config and config.dataset,
        "seed": config and config.seed,
        "differs": config and differences(config),
        "accuracy": run.accuracy(),
        "measured_on": run.measured_on(),
        "train_eval_accuracy": run.train_eval_accuracy(),
        "step": run.step,
        "total_steps": run.total_steps,
        "seconds": run.seconds,
        "problem": run.problem,
    }


def _short(name: str) -> str:
    return name if name == "optimizer.name" else name.removeprefix("optimizer.")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
