"""Compare runs: what differs in their configs, their accuracies and their curves."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.markup import escape
from rich.table import Column, Table

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.evaluation.pictures import label as legible
from jaxcnn.presets import PRESETS
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.folder import Result
from jaxcnn.workdir.metrics_log import Line, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class StoredRun(NamedTuple):
    """A run as its folder records it."""

    path: Path
    config: TrainConfig
    metrics: list[Line]
    result: Result | None  # None while the run is unfinished

    def test_accuracy(self) -> float | None:
        """Return the test accuracy of the last evaluation, or None before the first."""
        evaluated = [line["test_accuracy"] for line in self.metrics if "test_accuracy" in line]
        return evaluated[-1] if evaluated else None

    def epochs_done(self) -> float:
        """Return the epochs that the log covers, or all of a finished run."""
        logged = self.metrics[-1]["epoch"] if self.metrics else 0.0
        return float(self.config.epochs) if self.result else logged


def compare_runs(
    paths: Sequence[str | os.PathLike[str]], *, figure: str | os.PathLike[str] | None = None
) -> list[StoredRun]:
    """Print a table of runs, and means over seeds; draw their curves.

    Args:
      paths: folders of runs, or folders that contain folders of runs at any depth.
      figure: PNG file for the curves; None draws none.

    Returns:
      The runs, in the order of the table.

    Raises:
      UserError: a folder contains no run, or a config cannot be read.
    """
    runs = find_runs(paths)
    _print_runs(runs)
    groups = group_by_seed(run for run in runs if run.result)
    _print_seeds([group for group in groups if len(group) > 1])
    if figure is not None:
        _save_curves(runs, Path(figure))
        report.say(f"Written: {figure}")
    return runs


def find_runs(paths: Sequence[str | os.PathLike[str]]) -> list[StoredRun]:
    """Return the runs in the given folders and below them, sorted by name within each.

    Raises:
      UserError: a folder contains no run, or a config cannot be read.
    """
    folders: dict[Path, None] = {}  # in order, each once
    for path in map(Path, paths):
        path = path.expanduser()
        found = [path] if (path / "config.json").is_file() else _runs_below(path)
        if not found:
            raise UserError(
                f"{path} contains no run; expected a folder with a config.json, as "
                "scripts/train.py writes it, or a folder of such folders"
            )
        folders |= dict.fromkeys(found)
    return [_read(folder) for folder in folders]


def _runs_below(path: Path) -> list[Path]:
    """Return the folders below `path` that contain a config.json, without entering them."""
    runs = []
    for folder, names, files in os.walk(path):
        if "config.json" in files:
            runs.append(Path(folder))
            names.clear()
    return sorted(runs)


def _read(folder: Path) -> StoredRun:
    config = configs.with_whole_paths(workdirs.read_config(folder))
    return StoredRun(folder, config, read_metrics(folder), workdirs.read_result(folder))


def label(config: TrainConfig) -> str:
    """Return the preset of a run and the fields in which the run differs from it, without the seed.

    The fields of a run without a preset are compared with the defaults of `TrainConfig`. Fields
    that do not change a run's numbers, such as its folder, are left out.
    """
    base = PRESETS[config.preset].config if config.preset in PRESETS else TrainConfig()
    differing = configs.differences(config, base).items()
    values = [f"{_short(name)}={_text(ours)}" for name, (ours, _) in differing if name != "seed"]
    return " ".join([config.preset, *values])


def _short(name: str) -> str:
    return name if name == "optimizer.name" else name.removeprefix("optimizer.")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def group_by_seed(runs: Iterable[StoredRun]) -> list[list[StoredRun]]:
    """Return the runs in groups that differ in nothing but the seed."""
    groups: list[list[StoredRun]] = []
    for run in runs:
        for group in groups:
            if configs.differences(group[0].config, run.config).keys() <= {"seed"}:
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _print_runs(runs: Sequence[StoredRun]) -> None:
    names = [Column(name, overflow="fold") for name in ("run", "preset and what differs")]
    table = Table(*names, "seed", "epochs", "accuracy", "minutes")
    for run in runs:
        accuracy, config = run.test_accuracy(), run.config
        done = f"{run.epochs_done():.3g}"
        table.add_row(
            escape(str(run.path)),
            escape(label(config)),
            str(config.seed),
            done if run.result else f"{done} of {config.epochs}",
            "" if accuracy is None else f"{accuracy:.2%}",
            f"{run.result['total_seconds'] / 60:.1f}" if run.result else "",
        )
    report.console.print(table)


def _print_seeds(groups: Sequence[Sequence[StoredRun]]) -> None:
    if not groups:
        return
    table = Table("preset and what differs", "seeds", "accuracy", "least", "largest")
    for group in groups:
        accuracies = [run.result["test_accuracy"] for run in group if run.result]
        mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
        table.add_row(
            escape(label(group[0].config)),
            " ".join(str(run.config.seed) for run in group),
            f"{100 * mean:.2f} ± {100 * spread:.2f}%",
            f"{min(accuracies):.2%}",
            f"{max(accuracies):.2%}",
        )
    report.console.print(table)
    report.say("Accuracy: of the test images; mean ± sample standard deviation over finished runs.")


def _save_curves(runs: Sequence[StoredRun], path: Path) -> None:
    """Draw training loss and test error over the epochs, one color for each group of seeds."""
    figure = report.make_figure(9, 4.5)
    loss, error = figure.subplots(1, 2)
    for number, group in enumerate(group_by_seed(runs)):
        name = legible(label(group[0].config), 80)
        for run in group:
            style = {"color": f"C{number % 10}", "alpha": 0.8, "linewidth": 1}
            style["label"] = name if run is group[0] else None
            lines = run.metrics
            losses = [(x["epoch"], x["train_loss"]) for x in lines if "train_loss" in x]
            accuracies = [(x["epoch"], x["test_accuracy"]) for x in lines if "test_accuracy" in x]
            _plot(loss, losses, **style)
            _plot(error, [(epoch, 100 * (1 - y)) for epoch, y in accuracies], **style)
    for axes, text in ((loss, "training loss (nats)"), (error, "test error (%)")):
        axes.set(xlabel="epoch", ylabel=text)
        report.set_log_scale(axes)
    figure.legend(*error.get_legend_handles_labels(), loc="outside lower center", frameon=False)
    report.save_figure(figure, path)


def _plot(axes: Axes, points: list[tuple[float, float]], **style: Any) -> None:
    epochs, values = zip(*points, strict=True) if points else ((), ())
    axes.plot(epochs, values, marker="." if len(points) < 30 else None, **style)
