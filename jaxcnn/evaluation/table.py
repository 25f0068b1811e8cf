"""An evaluation as a table on the console."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from rich import box
from rich.table import Table
from rich.text import Text

from jaxcnn.report import console

LEGIBLE_CLASSES = 20  # a larger confusion matrix fits neither a table nor a picture


def print_evaluation(
    means: dict[str, float],
    confusion: Int[np.ndarray, "classes classes"],
    precision: Float[np.ndarray, " classes"],
    recall: Float[np.ndarray, " classes"],
    class_names: Sequence[str],
) -> None:
    """Print accuracy, loss, precision, recall and the confusion matrix.

    With more than LEGIBLE_CLASSES classes, print accuracy and loss only.
    """
    console.print(
        f"accuracy [bold]{means['accuracy']:.2%}[/], "
        f"{np.trace(confusion):,} of {confusion.sum():,} images; loss {means['loss']:.4f}"
    )
    if len(class_names) > LEGIBLE_CLASSES:
        console.print(f"top-5 accuracy {means['top_5_accuracy']:.2%}")
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
        counts = [
            f"[bold green]{count}[/]" if i == j else str(count) if count else "[dim]·[/]"
            for j, count in enumerate(confusion[i][: len(headings)])
        ]
        parts = ("-" if np.isnan(part) else f"{part:.1%}" for part in (recall[i], precision[i]))
        table.add_row(Text(name), *counts, *parts)
    console.print(table)
