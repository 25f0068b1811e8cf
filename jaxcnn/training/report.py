"""Reports of a training run: progress bar, result table, curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jaxcnn.report import caption, console, make_figure, save_figure, set_log_scale
from jaxcnn.workdir.folder import Result
from jaxcnn.workdir.metrics_log import read_metrics


def progress_bar() -> Progress:
    """Return a progress bar over steps that also shows the latest metrics (field `metrics`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=console,
    )


def print_result(result: Result, workdir: Path) -> None:
    """Print the result of a run as a table."""
    table = Table("", "", show_header=False)
    rows = {
        "model": f"{result['model']}, {result['num_parameters']:,} parameters",
        "dataset": escape(result["dataset"]),
        "epochs, steps": f"{result['epochs']}, {result['steps']:,}",
        "seed": result["seed"],
        "test accuracy": f"[bold]{result['test_accuracy']:.2%}[/] "
        f"of {result['num_test_examples']:,} images",
        "test loss": f"{result['test_loss']:.4f}",
        "training": f"{result['train_seconds']:.1f} s, "
        f"{result['examples_per_second']:,.0f} images/s",
        "compilation": f"{result['compile_seconds']:.1f} s",
        "in all": f"{result['total_seconds']:.1f} s",
        "devices": ", ".join(result["devices"]),
        "folder": escape(str(workdir)),
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)


def save_curves(workdir: Path, path: Path) -> None:
    """Draw loss and error of both sets over the epochs, from `metrics.jsonl`."""
    metrics: list[Any] = [*read_metrics(workdir)]
    figure = make_figure(9, 3.9)
    figure.suptitle(caption(str(workdir), 100), fontsize=11)
    for axes, name, label in zip(
        figure.subplots(1, 2), ("loss", "accuracy"), ("loss (nats)", "error (%)"), strict=True
    ):
        for split, color in (("train", "C0"), ("test", "C1")):
            points = [
                (line["epoch"], line[f"{split}_{name}"])
                for line in metrics
                if f"{split}_{name}" in line
            ]
            x, y = np.array(points or [(np.nan, np.nan)]).T
            y = 100 * (1 - y) if name == "accuracy" else y
            style = "o-" if split == "test" or len(points) == 1 else "-"
            axes.plot(x, np.where(y > 0, y, np.nan), color + style, markersize=3, label=split)
        axes.set(xlabel="epoch", ylabel=label)
        set_log_scale(axes)
        axes.legend(frameon=False)
    save_figure(figure, path)
