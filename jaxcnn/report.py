"""The console, and figures as files."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from jaxcnn.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASE_SECONDS = 1.0

console = Console(highlight=False)


def say(message: str) -> None:
    """Print a line."""
    console.print(escape(message), soft_wrap=True)


def is_interactive() -> bool:
    """Return whether the output is a notebook, or a terminal that can move its cursor."""
    return console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Say what lasts: a spinner on a terminal; elsewhere a line, if it lasts PHASE_SECONDS."""
    if is_interactive():
        with console.status(escape(name)):
            yield
        return
    timer = threading.Timer(PHASE_SECONDS, say, [f"{name} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be printing


def duration(seconds: float) -> str:
    """Return a duration in the units that matter, such as `40 s`, `5 min` or `1 h 05 min`."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def package_version(package: str) -> str:
    """Return the version of a package, or "not installed" for a checkout on the PYTHONPATH."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def device_name(device: str) -> str:
    """Return the model name of a processor, which is "cpu" in JAX; other devices unchanged."""
    cpuinfo = Path("/proc/cpuinfo")
    if device != "cpu" or not cpuinfo.exists():
        return device
    models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
    return models[0].split(":", 1)[1].strip() if models else device


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its sides in inches, that lays out titles and labels itself."""
    # No pyplot: it keeps global state and looks for a display.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def drawable(text: str) -> str:
    """Return a text for matplotlib: without mathtext, and with `?` for what cannot be printed."""
    return "".join(c if c.isprintable() else "?" for c in text).replace("$", r"\$")


def caption(name: str, length: int) -> str:
    """Return the end of a name for a figure, at most `length` letters."""
    return drawable(name if len(name) <= length else f"…{name[1 - length :]}")


def set_log_scale(axes: Axes) -> None:
    """Give axes a logarithmic y-axis with plain labels, such as 0.6, where there is room."""
    from matplotlib.ticker import LogFormatter

    class PlainLogFormatter(LogFormatter):
        """Label the ticks that LogFormatter labels."""

        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(PlainLogFormatter(minor_thresholds=(3, 0.7)))
    axes.grid(alpha=0.3, which="both")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure atomically: as SVG if that is the extension, else as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=150, format="svg" if path.suffix == ".svg" else "png")
    write_atomically(path, buffer.getvalue())
