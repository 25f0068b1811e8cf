"""Compare runs: a table, means over seeds, and curves in one picture."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.evaluation.runs import label, print_runs
from jaxcnn.workdir.listing import Run, list_runs
from jaxcnn.workdir.metrics_log import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def compare_runs(
    paths: Sequence[str | os.PathLike[str]], *, figure: str | os.PathLike[str] | None = None
) -> list[Run]:
    """Print a table of runs, and means over seeds; draw their curves.

    Args:
      paths: folders of runs, or folders that contain folders of runs at any depth.
      figure: PNG file for the curves; None draws none.

    Returns:
      The runs, in the order of the table.

    Raises:
      UserError: a folder contains no run, or a log that is to be drawn cannot be read.
    """
    runs = list_runs(paths)
    print_runs(runs)
    groups = group_by_seed(run for run in runs if run.result)
    _print_seeds([group for group in groups if len(group) > 1])
    if figure is not None:
        _save_curves(runs, Path(figure))
        report.say(f"Written: {figure}")
    return runs


def group_by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the runs that have a config, in groups that differ in nothing but the seed."""
    groups: list[list[Run]] = []
    for run in runs:
        if run.config is None:
            continue
        for group in groups:
            assert group[0].config is not None
            if configs.differences(group[0].config, run.config).keys() <= {"seed"}:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _label(run: Run) -> str:
    return label(run.config) if run.config else str(run.path)


def _print_seeds(groups: Sequence[Sequence[Run]]) -> None:
    if not groups:
        return
    table = Table("preset and what differs", "seeds", "accuracy", "least", "largest")
    if any(run.train_eval_accuracy() is not None for group in groups for run in group):
        table.add_column("training set")
    for group in groups:
        accuracies = [run.result["test_accuracy"] for run in group if run.result]
        training = [a for run in group if (a := run.train_eval_accuracy()) is not None]
        table.add_row(
            escape(_label(group[0])),
            " ".join(str(run.config.seed) for run in group if run.config),
            _mean_and_spread(accuracies),
            f"{min(accuracies):.2%}",
            f"{max(accuracies):.2%}",
            *([_mean_and_spread(training)] if training else []),
        )
    report.console.print(table)
    report.say("Accuracy: of the test images; mean ± sample standard deviation over finished runs.")


def _mean_and_spread(accuracies: Sequence[float]) -> str:
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    return f"{100 * mean:.2f} ± {100 * spread:.2f}%"


def _save_curves(runs: Sequence[Run], path: Path) -> None:
    """Draw training loss and error over the epochs, one color for each group of seeds."""
    from jaxcnn.evaluation.pictures import label as legible  # late: it imports NumPy

    figure = report.make_figure(9, 4.5)
    loss, error = figure.subplots(1, 2)
    splits = set()
    for number, group in enumerate(group_by_seed(runs)):
        name = legible(_label(group[0]), 80)
        for run in group:
            style = {"color": f"C{number % 10}", "alpha": 0.8, "linewidth": 1}
            style["label"] = name if run is group[0] else None
            lines: list[Any] = [*read_metrics(run.path)]
            split = "val" if any("val_accuracy" in line for line in lines) else "test"
            splits.add("validation" if split == "val" else "test")
            losses = [(x["epoch"], x["train_loss"]) for x in lines if "train_loss" in x]
            key = f"{split}_accuracy"
            errors = [(x["epoch"], 100 * (1 - x[key])) for x in lines if key in x]
            _plot(loss, losses, **style)
            _plot(error, errors, **style)
    names = " or ".join(sorted(splits))
    for axes, text in ((loss, "training loss (nats)"), (error, f"{names} error (%)")):
        axes.set(xlabel="epoch", ylabel=text)
        report.set_log_scale(axes)
    figure.legend(*error.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    report.save_figure(figure, path)


def _plot(axes: Axes, points: list[tuple[float, float]], **style: Any) -> None:
    epochs, values = zip(*points, strict=True) if points else ((), ())
    axes.plot(epochs, values, marker="." if len(points) < 30 else None, **style)
