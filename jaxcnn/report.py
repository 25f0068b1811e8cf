"""What a person looks at: progress, tables, metrics files and pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from jaxcnn import processes
from jaxcnn.workdir import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from tensorboardX import SummaryWriter

console = Console(highlight=False)

LEGIBLE_CLASSES = 20  # a confusion matrix of more is neither a table nor a picture


def say(message: str) -> None:
    """Prints a line."""
    console.print(escape(message), soft_wrap=True)


def progress_bar() -> Progress:
    """A bar over training steps, with the latest metrics beside it (task field `metrics`)."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
        console=console,
    )


class MetricsLog:
    """`metrics.jsonl`, a line for each logged step, and the same in TensorBoard's events.

    Of several processes, the first writes them.
    """

    def __init__(self, workdir: Path, *, step: int) -> None:
        """Opens the log of a run that is at `step`: lines of later steps, and torn ones, go."""
        self._workdir = workdir
        self._path = workdir / "metrics.jsonl"
        self._step = step
        text = self._path.read_text() if self._path.exists() else ""
        kept = [line + "\n" for line in text.splitlines() if _is_line_up_to(step, line)]
        if "".join(kept) != text:  # or its last line has not its end
            write_atomically(self._path, "".join(kept))
        self._events: SummaryWriter | None = None

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Adds a line; steps come in ascending order."""
        if not processes.is_first():
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._tensorboard().add_scalar(name, value, step)

    def close(self) -> None:
        """Writes out what TensorBoard's writer still holds."""
        if self._events is not None:
            self._events.close()

    def _tensorboard(self) -> SummaryWriter:
        # Imported at the first line: it takes seconds where torch is installed.
        if self._events is None:
            from tensorboardX import SummaryWriter

            purge_step = self._step + 1 if self._step else None
            self._events = SummaryWriter(str(self._workdir), purge_step=purge_step)
        return self._events


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def print_result(result: dict[str, Any], workdir: Path) -> None:
    """A finished run as a table."""
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


def print_evaluation(
    means: dict[str, float],
    confusion: Int[np.ndarray, "classes classes"],
    precision: Float[np.ndarray, " classes"],
    recall: Float[np.ndarray, " classes"],
    class_names: Sequence[str],
) -> None:
    """The test set in numbers: accuracy, loss, precision and recall, the confusion matrix.

    Of more than LEGIBLE_CLASSES only the first two.
    """
    console.print(
        f"accuracy [bold]{means['accuracy']:.2%}[/], "
        f"{np.trace(confusion):,} of {confusion.sum():,} images; loss {means['loss']:.4f}"
    )
    if len(class_names) > LEGIBLE_CLASSES:
        console.print(f"among the five likeliest {means['top_5_accuracy']:.2%}")
        return
    title = "Rows are the true class, columns the answer"
    # Ten columns of four digits or letters and two of percentages fit into 80 without padding.
    room = (console.width - max(map(len, class_names)) - 20) // len(class_names) - 1
    headings = [name[: max(4, room)] for name in class_names]
    if room < max(4, len(str(confusion.max()))):
        title, headings = "Which class was taken for which does not fit here: see confusion.png", []
    elif len({*headings}) < len(headings):
        headings = [str(i) for i in range(len(class_names))]
        class_names = [f"{i} {name}" for i, name in enumerate(class_names)]
    table = Table("class", title=title, box=box.SIMPLE, padding=0)
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for heading in ("recall", "precision"):
        table.add_column(heading, justify="right", style="bold")
    for i, name in enumerate(class_names):
        counts = [
            f"[bold green]{count}[/]" if i == j else str(count) if count else "[dim]·[/]"
            for j, count in enumerate(confusion[i][: len(headings)])
        ]
        parts = ("-" if np.isnan(part) else f"{part:.1%}" for part in (recall[i], precision[i]))
        table.add_row(Text(name), *counts, *parts)
    console.print(table)


def save_curves(workdir: Path, path: Path) -> None:
    """Loss and error of both sets over the epochs, from `metrics.jsonl`, as a picture."""
    from matplotlib.ticker import LogFormatter

    class PlainLogFormatter(LogFormatter):
        """Labels what LogFormatter has room for, as 0.6 and not 6e-01."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    metrics = read_metrics(workdir)
    figure = make_figure(9, 3.6)
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
        axes.set(xlabel="epoch", ylabel=label, yscale="log")
        for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            set_formatter(PlainLogFormatter(minor_thresholds=(3, 0.7)))
        axes.grid(alpha=0.3, which="both")
        axes.legend(frameon=False)
    save_figure(figure, path)


def save_confusion(
    confusion: Int[np.ndarray, "classes classes"], class_names: Sequence[str], path: Path
) -> None:
    """The confusion matrix as a picture: colour shows the errors, the diagonal is left white."""
    size = 2 + 0.55 * len(class_names)
    figure = make_figure(size, size)
    axes = figure.subplots()
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    strongest = max(1, 1.5 * errors.max())  # paler than the colour map's end: numbers stay legible
    axes.imshow(np.ma.masked_equal(errors, 0), cmap="Reds", vmin=0, vmax=strongest)
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            axes.text(
                j, i, f"{count}", ha="center", va="center", weight="bold" if i == j else "normal"
            )
    ticks = range(len(class_names))
    long_names = any(len(name) > 2 for name in class_names)
    axes.set_xticks(ticks, class_names, rotation=45 if long_names else 0)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="answer", ylabel="true class")
    axes.set_title(f"{errors.sum():,} errors in {confusion.sum():,} images")
    save_figure(figure, path)


def save_mistakes(
    images: UInt8[np.ndarray, "examples height width channels"] | Sequence[np.ndarray],
    labels: Int[np.ndarray, " examples"],
    probabilities: Float[np.ndarray, "examples classes"],
    class_names: Sequence[str],
    path: Path,
    *,
    count: int = 32,
) -> None:
    """The wrong answers that the network was surest of, as a grid of images."""
    predictions = probabilities.argmax(-1)
    confidence = probabilities.max(-1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    columns = 8
    rows = max(1, -(-len(worst) // columns))
    figure = make_figure(1.3 * columns, 0.5 + 1.6 * rows)
    figure.suptitle(
        f"The {len(worst)} surest of {len(wrong):,} wrong answers, their probability, and the truth"
    )
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, i in zip(grid, worst, strict=False):
        image = images[i]
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
        axes.set_title(
            f"{shortened(class_names[predictions[i]], 11)} ({confidence[i]:.1%})\n"
            f"is {shortened(class_names[labels[i]], 11)}, #{i}",
            fontsize=8,
        )
    save_figure(figure, path)


def shortened(name: str, length: int) -> str:
    """The name in at most so many letters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _is_line_up_to(step: int, line: str) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False


def make_figure(width: float, height: float) -> Figure:
    """An empty figure, its sides in inches, that makes room for titles and labels by itself."""
    # No pyplot: it keeps global state and looks for a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG, whatever the file's name; the old file stays until it is whole."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="png")
    write_atomically(path, buffer.getvalue())
