"""Train several runs: side by side on a CPU's cores, otherwise one after the other.

    python -m jaxcnn.evaluation.jobs < config.json

trains one of them, in a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jaxcnn import config as configs
from jaxcnn import records
from jaxcnn.cli import one_line_errors
from jaxcnn.config import TrainConfig
from jaxcnn.errors import RunError, UserError
from jaxcnn.training.signals import stop_signals
from jaxcnn.training.validate import validated

POLL_SECONDS = 0.2
NEWS = ("epoch ", "step ", "Going on", "Stopped after", "This run is finished")  # what is passed on


class Job(NamedTuple):
    """A run to train, and its name in messages."""

    name: str
    config: TrainConfig


Watch = Callable[[Job, str], None]


def train_jobs(jobs: Sequence[Job], watch: Watch, *, at_a_time: int | None = None) -> None:
    """Train runs, each in a process of its own; an interrupted one continues when repeated.

    On a CPU, as many runs as there are cores train at a time, each on its share of the cores: a
    small network uses one core better than it uses many. The number of cores decides how sums are
    rounded, so the last digits differ from those of a run on all cores.

    Args:
      jobs: the runs, in the order of their start.
      watch: called with a job and a line of its output, such as those of `NEWS`, and when it ends.
      at_a_time: number of runs that train at a time; by default that of the cores on a CPU, and 1
        on an accelerator.

    Raises:
      UserError: a config is refused.
      RunError: a run failed or was stopped by a signal; the others are finished.
    """
    jobs = [job._replace(config=validated(job.config)) for job in jobs]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if at_a_time is None:
        at_a_time = len(cores) if cores and _default_backend() == "cpu" else 1
    if at_a_time < 1:
        raise UserError(f"`jobs` is {at_a_time}; expected at least 1")
    at_a_time = min(at_a_time, len(jobs))
    waiting, running, failed = list(jobs), dict[int, _Child](), list[str]()
    forwarded = False
    with stop_signals() as received:
        while running or (waiting and not received):
            for place in range(at_a_time):
                if place not in running and waiting and not received:
                    share = cores[place::at_a_time] if at_a_time > 1 else []
                    running[place] = _Child(waiting.pop(0), share, watch)
            time.sleep(POLL_SECONDS)
            if received and not forwarded:
                _forward(received[0], running.values())
                forwarded = True
            for place, child in list(running.items()):
                if child.process.poll() is not None:
                    del running[place]
                    failed += child.end()
    if received:
        raise Stopped(received[0])
    if failed:
        raise RunError("; ".join(failed))


class Stopped(RunError):
    """A signal stopped the runs that were training; each has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}; the same command continues from the "
            "checkpoints"
        )
        self.exit_code = 128 + signal_number


class _Child:
    """The process that trains one run, and the threads that read its output."""

    def __init__(self, job: Job, cores: Sequence[int], watch: Watch) -> None:
        self._job, self._watch = job, watch
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(configs.to_json(job.config))
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._say, daemon=True),
            threading.Thread(target=self._collect, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _say(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith(NEWS):
                self._watch(self._job, line.rstrip())

    def _collect(self) -> None:
        self._errors.extend(self.process.stderr or ())

    def end(self) -> list[str]:
        """Return why the process failed, in a list; nothing if it did not."""
        for thread in self._threads:
            thread.join()
        if self.process.returncode == 0:
            self._watch(self._job, "finished")
            return []
        last = self._errors[-1].strip() if self._errors else f"status {self.process.returncode}"
        return [f"{self._job.name}: {last.removeprefix('error: ')}"]


def _forward(number: int, children: Iterable[_Child]) -> None:
    """Pass a signal on to the children, which save checkpoints."""
    # Those of a terminal reach the children by themselves; a second one would kill them.
    if number == signal.SIGTERM or not sys.stdin.isatty():
        for child in children:
            child.process.send_signal(number)


def _default_backend() -> str:
    """Return JAX's backend, asked in another process: this one would hold the accelerator."""
    code = "import jax; print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip()


def _end_with_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)  # which saves a checkpoint


def main() -> None:
    """Train the config on standard input, on the cores that the arguments name.

    If the parent is killed, the run saves a checkpoint and stops, so that it can be started again.
    """
    with one_line_errors():
        threading.Thread(target=_end_with_parent, daemon=True).start()
        if cores := [int(core) for core in sys.argv[1:]]:
            os.sched_setaffinity(0, cores)  # before jax counts them
        config = configs.from_dict(records.parse(sys.stdin.buffer.read()))
        # Late, because these import jax.
        from jaxcnn.interop.initialize import load_initial_params
        from jaxcnn.training.train import train_and_evaluate

        train_and_evaluate(config, initial_params=load_initial_params(config))


if __name__ == "__main__":
    main()
