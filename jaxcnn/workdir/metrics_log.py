"""The metrics of a run over its steps, as JSON lines and as TensorBoard's events."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

from jaxcnn import records
from jaxcnn.config import NOT_NEGATIVE
from jaxcnn.errors import RunError, UserError
from jaxcnn.files import open_regular, sync, write_atomically

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventsWriter

TAIL_BYTES = 2**17  # of a log: about 800 lines

MAX_BYTES = 2**32  # of a log; a line has about 200

_log = logging.getLogger(__name__)


class LogDigest(TypedDict):
    """Length and digest of a log, by which a checkpoint knows the log that belongs to it."""

    lines: Annotated[int, NOT_NEGATIVE]
    sha256: str


class _Step(TypedDict):
    step: Annotated[int, NOT_NEGATIVE]


class Line(_Step, total=False):
    """One line of metrics.jsonl."""

    epoch: Annotated[float, NOT_NEGATIVE]
    learning_rate: Annotated[float, NOT_NEGATIVE]
    train_loss: float
    train_accuracy: float
    train_eval_loss: float
    train_eval_accuracy: float
    val_loss: float
    val_accuracy: float
    test_loss: float
    test_accuracy: float
    skipped_steps: Annotated[int, NOT_NEGATIVE]


class MetricsLog:
    """`metrics.jsonl`, one line for each logged step, and the same as TensorBoard's events."""

    def __init__(self, workdir: Path, *, step: int, expected: LogDigest | None = None) -> None:
        """Open the log at `step`; drop lines past it, and lines that cannot be read.

        Args:
          workdir: folder of the run.
          step: step from which the run continues.
          expected: what `sync` returned at that step; a warning says if the log differs.

        Raises:
          UserError: the log is a folder, a fifo or another special file.
          OSError: the log cannot be read or written.
        """
        self._workdir = workdir
        self._path = workdir / "metrics.jsonl"
        self._step = step
        content = _read(self._path)
        lines = [line + b"\n" for line in content.splitlines() if _is_line_up_to(step, line)]
        self._lines = len(lines)
        self._hash = hashlib.sha256(b"".join(lines))
        if b"".join(lines) != content:  # or the last line has no newline
            write_atomically(self._path, b"".join(lines))
        if expected is not None and expected != self._digest():
            _log.warning(
                "%s has %d lines up to step %d; expected %d lines, with the digest in the "
                "checkpoint; lines were lost or changed, and the curves lack them",
                *(self._path, self._lines, step, expected["lines"]),
            )
        self._events: EventsWriter | None = None

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Append a line; steps must be in ascending order.

        Raises:
          RunError: the line cannot be written.
        """
        line = json.dumps({"step": step, **metrics}).encode() + b"\n"
        try:
            with self._path.open("ab") as file:
                file.write(line)
            self._write_events(step, metrics)
        except OSError as error:  # of a full disk, which does not name the file
            raise RunError(f"cannot write {self._path}: {error.strerror}") from error
        self._lines += 1
        self._hash.update(line)

    def sync(self) -> LogDigest:
        """Flush the log to the disk; return its length and digest, for a checkpoint."""
        if self._path.exists():
            sync(self._path)
            sync(self._workdir)
        return self._digest()

    def close(self) -> None:
        """Close the events of TensorBoard, which `write` has flushed."""
        if self._events is not None:
            with contextlib.suppress(OSError):  # `write` has raised it
                self._events.close()

    def _digest(self) -> LogDigest:
        return {"lines": self._lines, "sha256": self._hash.hexdigest()}

    def _write_events(self, step: int, metrics: dict[str, float]) -> None:
        # SummaryWriter would write in a thread, where the error of a full disk is lost.
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.summary import scalar

        if self._events is None:
            self._events = EventsWriter(str(self._workdir / "events"))
            if self._step:  # TensorBoard drops what an earlier start wrote past this step
                session = SessionLog(status=SessionLog.START)
                self._events.write_event(Event(step=self._step + 1, session_log=session))
        for name, value in metrics.items():
            event = Event(wall_time=time.time(), step=step, summary=scalar(name, value))
            self._events.write_event(event)
        self._events.flush()


def read_metrics(workdir: Path) -> list[Line]:
    """Return the lines of a run's `metrics.jsonl`; none if there is no such file.

    Raises:
      UserError: a line cannot be read; the message names it.
    """
    path = workdir / "metrics.jsonl"
    lines: list[Line] = []
    for number, text in enumerate(_read(path).splitlines(), start=1):
        try:
            lines.append(_parse(text))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}; delete the line") from None
    return lines


def latest(workdir: Path) -> Line:
    """Return the latest value of each field of a run's `metrics.jsonl` since its last evaluation.

    Lines that cannot be read are skipped, and a file that cannot be read is empty.
    """
    values: Line = {"step": 0}
    try:
        with open_regular(workdir / "metrics.jsonl", max_bytes=MAX_BYTES) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines()
    except (OSError, ValueError):
        return values
    for text in reversed(lines):
        with contextlib.suppress(UserError):
            values = {**_parse(text), **values} if values["step"] else _parse(text)
        if "test_accuracy" in values or "val_accuracy" in values:
            break
    return values


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """Let `import torch` fail: tensorboardX tries it, which takes seconds, and works without."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]  # import raises ImportError
    try:
        yield
    finally:
        del sys.modules["torch"]


def _read(path: Path) -> bytes:
    """Return the content of a log; nothing if there is no such file."""
    try:
        with open_regular(path, max_bytes=MAX_BYTES) as file:
            return file.read()
    except FileNotFoundError:
        return b""
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {error}; move it away") from None


def _parse(text: bytes) -> Line:
    return records.convert(records.parse(text), Line)


def _is_line_up_to(step: int, text: bytes) -> bool:
    try:
        return _parse(text)["step"] <= step
    except UserError:
        return False
