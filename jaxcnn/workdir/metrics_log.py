"""The metrics of a run over its steps, as JSON lines and as TensorBoard's events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcnn.files import write_atomically

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


class MetricsLog:
    """`metrics.jsonl`, one line for each logged step, and the same as TensorBoard's events."""

    def __init__(self, workdir: Path, *, step: int) -> None:
        """Open the log at `step`; drop lines past it and truncated lines."""
        self._workdir = workdir
        self._path = workdir / "metrics.jsonl"
        self._step = step
        text = self._path.read_text() if self._path.exists() else ""
        kept = [line + "\n" for line in text.splitlines() if _is_line_up_to(step, line)]
        if "".join(kept) != text:  # or its last line has not its end
            write_atomically(self._path, "".join(kept))
        self._events: SummaryWriter | None = None

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line; steps must be in ascending order."""
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
        for name, value in metrics.items():
            self._tensorboard().add_scalar(name, value, step)

    def close(self) -> None:
        """Flush the events of TensorBoard."""
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
    """Return the lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def _is_line_up_to(step: int, line: str) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
