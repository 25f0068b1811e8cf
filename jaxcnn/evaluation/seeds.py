"""Train one config with several seeds: side by side on a CPU's cores, else one after the other.

    python -m jaxcnn.evaluation.seeds < config.json

trains one of them, in a process of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxcnn import config as configs
from jaxcnn import records, report
from jaxcnn.cli import one_line_errors
from jaxcnn.config import TrainConfig
from jaxcnn.errors import RunError, UserError
from jaxcnn.training.signals import stop_signals
from jaxcnn.training.validate import validated
from jaxcnn.workdir.folder import continued, default_workdir

POLL_SECONDS = 0.2


def train_seeds(
    config: TrainConfig, seeds: Sequence[int], *, continues: bool = False
) -> list[Path]:
    """Train a config once with each seed, each in a process of its own, and return the run folders.

    On a CPU, as many seeds as there are cores train at a time, each on its share of the cores: a
    small network uses one core better than it uses many. The number of cores decides how sums are
    rounded, so the last digits differ from those of a run on all cores. Interrupted seeds continue
    when the call is repeated.

    Args:
      config: config whose seed is replaced. Its `workdir`, if given, is the folder of the runs.
      seeds: the seeds.
      continues: make existing runs longer; see `folder.continued`.

    Raises:
      UserError: a seed is out of range or given twice, the run is spread over processes, or there
        is no run to make longer.
      RunError: the run of a seed failed or was stopped by a signal; the others are finished.
    """
    if len({*seeds}) < len(seeds):
        raise UserError(f"`seeds` are {' '.join(map(str, seeds))}; expected each once")
    if config.multihost or config.model_axis > 1:
        raise UserError(
            "`seeds` is given with `multihost` or `model_axis`, which spread one run over devices; "
            "start each seed by itself"
        )
    runs = [validated(_with_seed(config, seed, continues)) for seed in seeds]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    at_a_time = min(len(cores), len(runs)) if cores and _default_backend() == "cpu" else 1
    waiting, running, failed = list(runs), dict[int, _Child](), list[str]()
    forwarded = False
    with stop_signals() as received:
        while running or (waiting and not received):
            for place in range(at_a_time):
                if place not in running and waiting and not received:
                    share = cores[place::at_a_time] if at_a_time > 1 else []
                    running[place] = _Child(waiting.pop(0), share)
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
    return [Path(run.workdir or "") for run in runs]


class Stopped(RunError):
    """A signal stopped the seeds that were training; each has saved a checkpoint."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name}; the same command continues from the "
            "checkpoints"
        )
        self.exit_code = 128 + signal_number


def _with_seed(config: TrainConfig, seed: int, continues: bool) -> TrainConfig:
    config = dataclasses.replace(config, seed=seed)
    if config.workdir is not None:
        config = dataclasses.replace(config, workdir=os.path.join(config.workdir, f"seed{seed}"))
    if continues:
        return continued(config)
    return dataclasses.replace(config, workdir=config.workdir or default_workdir(config))


class _Child:
    """The process that trains one seed, and the threads that read its output."""

    def __init__(self, config: TrainConfig, cores: Sequence[int]) -> None:
        self._name = f"seed {config.seed}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError), self.process.stdin as stdin:
            stdin.write(configs.to_json(config))
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._say, daemon=True),
            threading.Thread(target=self._collect, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _say(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith(("epoch ", "Going on", "This run is finished")):
                report.say(f"{self._name}: {line.rstrip()}")

    def _collect(self) -> None:
        self._errors.extend(self.process.stderr or ())

    def end(self) -> list[str]:
        """Return why the process failed, in a list; nothing if it did not."""
        for thread in self._threads:
            thread.join()
        if self.process.returncode == 0:
            return []
        last = self._errors[-1].strip() if self._errors else f"status {self.process.returncode}"
        return [f"{self._name}: {last.removeprefix('error: ')}"]


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


def main() -> None:
    """Train the config on standard input, on the cores that the arguments name."""
    with one_line_errors():
        if cores := [int(core) for core in sys.argv[1:]]:
            os.sched_setaffinity(0, cores)  # before jax counts them
        config = configs.from_dict(records.parse(sys.stdin.buffer.read()))
        # Late, because these import jax.
        from jaxcnn.interop.initialize import load_initial_params
        from jaxcnn.training.train import train_and_evaluate

        train_and_evaluate(config, initial_params=load_initial_params(config))


if __name__ == "__main__":
    main()
