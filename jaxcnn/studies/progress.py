"""One display for the runs that train at a time: which, how far, and how long the rest takes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from jaxcnn import report
from jaxcnn.evaluation.jobs import Job


class StudyProgress:
    """A bar over all runs and a line for each that trains; without a terminal, a line at each end.

    Use it as a context, and pass `watch` to `train_jobs`.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._total, self._done = len(jobs), 0
        self._start = time.monotonic()
        self._lock = threading.Lock()  # each run has a thread that calls `watch`
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=report.console,
            disable=not report.is_interactive(),
        )
        self._all = self._bar.add_task("runs", total=self._total, note="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Show the display."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the display as it is."""
        self._bar.stop()

    def watch(self, job: Job, line: str) -> None:
        """Show a line that a run has printed, or that it has finished."""
        with self._lock:
            if line == "finished":
                self._finish(job)
            elif match := re.match(r"epoch (\d+)", line):
                if job.name not in self._tasks:
                    self._tasks[job.name] = self._bar.add_task(
                        f"  {job.name}", total=job.config.epochs, note="epochs"
                    )
                self._bar.update(self._tasks[job.name], completed=int(match[1]))

    def _finish(self, job: Job) -> None:
        self._done += 1
        seconds = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        left = f"about {report.duration(seconds)} left" if self._done < self._total else ""
        self._bar.update(self._all, completed=self._done, note=left)
        if (task := self._tasks.pop(job.name, None)) is not None:
            self._bar.remove_task(task)
        if not report.is_interactive():
            report.say(f"{job.name}: finished, {self._done} of {self._total} runs {left}".rstrip())
