"""SIGINT, SIGTERM and SIGHUP: a run saves a checkpoint before it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Iterator
from typing import Any

from jaxcnn.distributed.processes import CollectiveError

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(CollectiveError):
    """A signal ended the run, after a checkpoint; the same command continues from there."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} at step {step:,} of {total_steps:,}; "
            "a checkpoint is saved; start the same command again to continue from it"
        )
        self.exit_code = 128 + signal_number


@contextlib.contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list; a second one of the same kind acts as usual.

    A signal that the process ignores, such as SIGHUP under `nohup`, stays ignored. After SIGHUP the
    terminal is gone, so output that was shown on it is discarded.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    previous: dict[int, Any] = {}

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])
        if number == signal.SIGHUP:
            _leave_terminal()

    number: int
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.getsignal(number)
            signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Redirect output to the null device where it is shown on a terminal."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):  # it is closed
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)
