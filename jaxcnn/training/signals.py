"""SIGINT and SIGTERM: a run saves a checkpoint before it ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from jaxcnn.distributed.processes import CollectiveError


class Interrupted(CollectiveError):
    """A signal ended the run, after a checkpoint; the same command continues from there."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} at step {step:,} of {total_steps:,}; "
            "a checkpoint is saved, and the same command goes on from it"
        )
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list; a second one of the same kind acts as usual."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
