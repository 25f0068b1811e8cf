"""Reports of a training run: progress bar, result table, curves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxcnn.config import TrainConfig
from jaxcnn.report import (
    caption,
    console,
    duration,
    is_interactive,
    make_figure,
    save_figure,
    say,
    set_log_scale,
)
from jaxcnn.workdir.folder import Result
from jaxcnn.workdir.metrics_log import read_metrics

# Where there is no terminal, seconds before the first line of progress, and between lines.
FIRST_LINE_SECONDS, LINE_SECONDS = 10, 60

# Prefix of the metrics of a split in the log -> its label and color.
CURVES = {
    "train": ("train", "C0"),
    "train_eval": ("train, evaluated", "C3"),
    "val": ("validation", "C2"),
    "test": ("test", "C1"),
}


class TrainingProgress:
    """The progress of training: a bar on a terminal, elsewhere a line each minute.

    Args:
      config: config of the run.
      steps_per_epoch: steps of an epoch.
      step: step from which the run continues.
    """

    def __init__(self, config: TrainConfig, steps_per_epoch: int, step: int) -> None:
        self._batch_size = config.batch_size
        self._steps_per_epoch = steps_per_epoch
        self._total = config.epochs * steps_per_epoch
        self._first = self._last = (step, time.perf_counter())
        self._next_line = self._first[1] + FIRST_LINE_SECONDS
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=console,
            disable=not is_interactive(),
        )
        name = escape(config.preset)
        self._task = self._bar.add_task(name, total=self._total, completed=step, metrics="")

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, step: int, loss: float) -> None:
        """Show a step and the mean training loss of the latest steps."""
        self._bar.update(self._task, completed=step, metrics=f"loss {loss:.4f}")
        now = time.perf_counter()
        if is_interactive() or now < self._next_line:
            return
        speed = (step - self._last[0]) * self._batch_size / (now - self._last[1])
        left = (self._total - step) * (now - self._first[1]) / (step - self._first[0])
        say(
            f"step {step:,} of {self._total:,}, epoch {step / self._steps_per_epoch:.2f}: "
            f"loss {loss:.4f}, {speed:,.0f} images/s, {duration(left)} left"
        )
        self._last, self._next_line = (step, now), now + LINE_SECONDS


def print_result(result: Result, workdir: Path) -> None:
    """Print the result of a run as a table."""
    table = Table("", "", show_header=False)
    best = result.get("best_step")
    rows = {
        "model": f"{result['model']}, {result['num_parameters']:,} parameters",
        "dataset": escape(result["dataset"]),
        "epochs, steps": f"{result['epochs']}, {result['steps']:,}"
        + (", stopped early" if result.get("stopped_early") else ""),
        "seed": result["seed"],
        **({"skipped steps": f"{skipped:,}"} if (skipped := result.get("skipped_steps")) else {}),
        "test accuracy": f"[bold]{result['test_accuracy']:.2%}[/] "
        f"of {result['num_test_examples']:,} images" + (f", step {best:,}" if best else ""),
        "test loss": f"{result['test_loss']:.4f}",
        "training": f"{result['train_seconds']:.1f} s, "
        f"{result['examples_per_second']:,.0f} images/s",
        "compilation": f"{result['compile_seconds']:.1f} s",
        "in all": f"{result['total_seconds']:.1f} s",
        "devices": ", ".join(result["devices"]),
        "folder": escape(str(workdir)),
    }
    if "train_eval_accuracy" in result:
        rows["training set"] = (
            f"{result['train_eval_accuracy']:.2%} of {result['num_train_eval_examples']:,} images, "
            f"loss {result['train_eval_loss']:.4f}"
        )
    if best:
        rows["best validation"] = (
            f"{result['val_accuracy']:.2%} of {result['num_val_examples']:,} images, step {best:,}"
        )
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)


def save_curves(workdir: Path, path: Path) -> None:
    """Draw loss and error of both sets over the epochs, from `metrics.jsonl`."""
    metrics: list[Any] = [*read_metrics(workdir)]
    figure = make_figure(9, 3.9)
    figure.suptitle(caption(str(workdir), 100), fontsize=11)
    for axes, name, ylabel in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "error (%)"), strict=True
    ):
        for split, (label, color) in CURVES.items():
            points = [
                (line["epoch"], line[f"{split}_{name}"])
                for line in metrics
                if f"{split}_{name}" in line
            ]
            if not points:
                continue
            x, y = np.array(points).T
            y = 100 * (1 - y) if name == "accuracy" else y
            style = "-" if split == "train" and len(points) > 1 else "o-"
            axes.plot(x, np.where(y > 0, y, np.nan), color + style, markersize=3, label=label)
        axes.set(xlabel="epoch", ylabel=ylabel)
        set_log_scale(axes)
        if axes.lines:
            axes.legend(frameon=False)
    save_figure(figure, path)
