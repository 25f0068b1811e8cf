"""What a person looks at: progress, tables, metrics files and pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from jaxcnn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

console = Console(highlight=False)


def say(message: str) -> None:
    """Prints a line."""
    console.print(escape(message), soft_wrap=True)


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
