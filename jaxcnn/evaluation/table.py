"""An evaluation as a table on the console."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from jaxcnn.evaluation.metrics import LEGIBLE_CLASSES
from jaxcnn.report import console


def print_evaluation(evaluation: dict[str, Any]) -> None:
    """Print the numbers of `metrics.measure`: accuracy, loss and the table of the classes.

    Balanced accuracy and F1 are printed if the classes differ in size. With more than
    LEGIBLE_CLASSES classes, the top-5 accuracy replaces the table.
    """
    class_names, counts = evaluation["class_names"], evaluation["num_examples"]
    confusion = np.array(evaluation["confusion"])
    console.print(
        f"accuracy [bold]{evaluation['test_accuracy']:.2%}[/], "
        f"{np.trace(confusion):,} of {confusion.sum():,} images; loss {evaluation['test_loss']:.4f}"
    )
    if max(counts) > 1.5 * min(counts):
        console.print(
            f"balanced accuracy {evaluation['balanced_accuracy']:.2%}, "
            f"macro F1 {evaluation['macro_f1']:.4f}"
        )
    if len(class_names) > LEGIBLE_CLASSES:
        console.print(f"top-5 accuracy {evaluation['test_top_5_accuracy']:.2%}")
        return
    title = "Rows are the true class, columns the answer"
    # Ten columns of four digits or letters and two of percentages fit into 80 without padding.
    room = (console.width - max(map(len, class_names)) - 20) // len(class_names) - 1
    headings = [name[: max(4, room)] for name in class_names]
    if room < max(4, len(str(confusion.max()))):
        title, headings = "The confusion matrix is too wide for this console: see confusion.png", []
    elif len({*headings}) < len(headings):
        headings = [str(i) for i in range(len(class_names))]
        class_names = [f"{i} {name}" for i, name in enumerate(class_names)]
    table = Table("class", title=title, box=box.SIMPLE, padding=0)
    for heading in headings:
        table.add_column(Text(heading), justify="right")
    for heading in ("recall", "precision"):
        table.add_column(heading, justify="right", style="bold")
    for i, name in enumerate(class_names):
        cells = [
            f"[bold green]{count}[/]" if i == j else str(count) if count else "[dim]·[/]"
            for j, count in enumerate(confusion[i][: len(headings)])
        ]
        parts = (evaluation[part][i] for part in ("recall", "precision"))
        parts = ("-" if part is None else f"{part:.1%}" for part in parts)
        table.add_row(Text(name), *cells, *parts)
    console.print(table)
