"""One display of the progress of several runs that train at a time."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from jaxcnn import report
from jaxcnn.evaluation.jobs import Job, Watch
from jaxcnn.workdir.lock import is_locked
from jaxcnn.workdir.metrics_log import latest

BAR_WIDTH = 20


@contextlib.contextmanager
def show_progress(jobs: Sequence[Job], *, only_ends: bool = False) -> Iterator[Watch]:
    """Yield a `watch` for `train_jobs` that prints lines, above a bar for each run on a terminal.

    The bars are read from the logs of the runs. Without a terminal, the runs' own lines of
    progress, one each minute, are printed instead.

    Args:
      jobs: the runs.
      only_ends: print a line only where a run ends, with the time that the others will take.
    """
    has_bars, start, done = report.is_interactive(), time.monotonic(), itertools.count(1)

    def watch(job: Job, line: str) -> None:
        if only_ends:
            if line == "finished":
                number = next(done)
                seconds = (time.monotonic() - start) * (len(jobs) - number) / number
                left = f", about {report.duration(seconds)} left" if number < len(jobs) else ""
                report.say(f"{job.name}: finished, {number} of {len(jobs)} runs{left}")
        elif not (has_bars and line.startswith("step ")):
            report.say(f"{job.name}: {line}")

    if not has_bars:
        yield watch
        return
    with Live(
        get_renderable=lambda: bars(jobs),
        console=report.console,
        refresh_per_second=2,
        transient=True,
    ):
        yield watch


def bars(jobs: Sequence[Job]) -> RenderableType:
    """Return a table with a row for each run in whose folder a process trains."""
    table = Table.grid(padding=(0, 1))
    for job in jobs:
        workdir = Path(job.config.workdir or "")
        if not is_locked(workdir):
            continue
        last = latest(workdir)
        step, epoch = last["step"], last.get("epoch", 0.0)
        loss = f"loss {last['train_loss']:.4f}" if "train_loss" in last else ""
        bar = ProgressBar(total=job.config.epochs, completed=epoch, width=BAR_WIDTH)
        epochs = f"epoch {epoch:.1f} of {job.config.epochs}" if step else "starting"
        table.add_row(escape(job.name), bar, epochs, loss)
    return table
