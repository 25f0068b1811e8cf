"""A comparison: start the sides of a benchmark, alternate between them, collect their figures.

This module imports neither jax nor torch, because the peak memory of a new process starts at its
parent's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from jaxcnn import report
from jaxcnn.benchmarks.job import Job, full_name
from jaxcnn.benchmarks.torch_side import VARIANTS
from jaxcnn.errors import RunError, UserError, lookup

# Name of a side to compare with -> its variants, of which the fastest takes part.
AGAINST: dict[str, Sequence[str]] = {
    **{"linen": ("",), "onnxruntime": ("",), "torch": VARIANTS},
    **{f"torch-{variant}": (variant,) for variant in VARIANTS},
}

# Number of cores from which all sides start at once; importing and compiling mostly use one core.
MIN_CORES_TO_START_TOGETHER = 16

# Pause before each turn, because idle threads of some libraries spin for a while.
PAUSE_SECONDS = 0.3


def compare(
    job: Job,
    against: Sequence[str],
    *,
    yardsticks: Sequence[str] = ("matmul",),
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure jaxcnn, other sides and the machine's own rates, in alternation.

    Args:
      job: work of each side; its own `side` and `variant` are ignored.
      against: names in AGAINST.
      yardsticks: sides that measure the machine: "matmul", "copy".
      rounds: number of turns of each side.
      seconds: shortest duration of a turn.
      say: function that prints a progress line.

    Returns:
      The arguments, the machine, `sides` with the facts of each, `left_out` with the reasons, and
      `rounds`: side -> steps, seconds and peak memory.

    Raises:
      UserError: an argument is out of range, or the network or a side is unknown.
      RunError: jaxcnn's side failed.
    """
    for side in against:
        lookup("side", side, AGAINST)
    check_turns(rounds, seconds)
    if job.batch_size < 1:
        raise UserError(f"`batch_size` is {job.batch_size}; expected at least 1; give a larger one")
    left_out: dict[str, str] = {}
    sides = dict.fromkeys(("jaxcnn", *against, *yardsticks))
    jobs = [
        dataclasses.replace(job, side=side, variant=variant)
        for side in sides
        for variant in AGAINST.get(side, ("",))
    ]
    together = cpu_count() >= MIN_CORES_TO_START_TOGETHER
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for group in [jobs] if together else [[job] for job in jobs]:
            say(f"starting {', '.join(full_name(job.side, job.variant) for job in group)}")
            _start(group, seconds, stack, workers, left_out)
        workers = {side: workers[side] for side in sides if side in workers}
        turns = []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            # Alternate the order so that no side always follows the same one.
            order = list(workers)[:: 1 if number % 2 == 0 else -1]
            measured = {side: workers[side].measure(seconds) for side in order}
            turns.append({side: measured[side] for side in workers})
    return {
        **{name: getattr(job, name) for name in ("network", "what", "batch_size", "dtype")},
        "image_size": job.image_size,
        "images_per_step": job.images_per_step,
        "seconds_per_turn": seconds,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": report.device_name(workers["jaxcnn"].facts["device"]),
        "cpu_count": cpu_count(),
        "python": platform.python_version(),
        "sides": {side: worker.facts for side, worker in workers.items()},
        "left_out": left_out,
        "rounds": turns,
    }


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def check_turns(rounds: int, seconds: float) -> None:
    """Raise an error unless the number of turns and their duration are in range.

    Raises:
      UserError: `rounds` is below 1 or `seconds` is not positive.
    """
    if rounds < 1 or not seconds > 0:
        raise UserError(
            f"`rounds` is {rounds} and `seconds` is {seconds}; expected at least 1 round and more "
            "than 0 seconds; give larger numbers"
        )


class Worker:
    """A process that does one job; see `worker`.

    Attributes:
      facts: first reply of the process, with its device and versions, and the variant.
    """

    facts: dict[str, Any]

    def __init__(self, job: Job) -> None:
        """Start the process."""
        environment = {
            # Without caches, so that compile times are those of a first run.
            "JAX_ENABLE_COMPILATION_CACHE": "false",
            "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
            # Otherwise the first process reserves most of a GPU's memory.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        self._job = job
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jaxcnn.benchmarks.worker"),
                json.dumps(dataclasses.asdict(job)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | environment,
        )

    def wait(self) -> None:
        """Wait until the process has compiled its job and is ready.

        Raises:
          UserError: the job is invalid.
          RunError: the process failed.
        """
        self.facts = {"variant": self._job.variant, **self._answer()}

    def measure(self, seconds: float) -> dict[str, float]:
        """Return the steps done, their seconds (at least `seconds`) and the peak memory so far.

        Raises:
          RunError: the process failed.
        """
        time.sleep(PAUSE_SECONDS)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process ended; `_answer` reports why
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process if it is still running."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # asks the process to exit
        try:
            # While it starts, it does not read its input.
            self._process.wait(timeout=10 if hasattr(self, "facts") else 0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = (self._errors.read().strip().splitlines() or [""])[-1]
            raise RunError(f"the process exited with status {status}: {last or 'no message'}")
        answer = json.loads(line)
        match answer:
            case {"kind": "UserError", "error": error}:
                raise UserError(error)
            case {"kind": kind, "error": error}:
                raise RunError(f"{kind}: {error}")
        return answer


def _start(
    jobs: Sequence[Job],
    seconds: float,
    stack: contextlib.ExitStack,
    fastest: dict[str, Worker],
    left_out: dict[str, str],
) -> None:
    """Start jobs together, measure one warm-up turn of each, and keep each side's fastest variant.

    Raises:
      UserError: jaxcnn or a yardstick cannot do the job.
      RunError: jaxcnn or a yardstick failed.
    """
    workers: dict[Job, Worker] = {}
    for job in jobs:
        workers[job] = Worker(job)
        stack.callback(workers[job].stop)

    def for_each(act: Callable[[Job, Worker], None]) -> None:
        for job, worker in list(workers.items()):
            try:
                act(job, worker)
            except (UserError, RunError) as error:
                if job.side not in AGAINST:
                    raise
                left_out[full_name(job.side, job.variant)] = str(error)
                workers.pop(job).stop()

    def compete(job: Job, worker: Worker) -> None:
        turn = worker.measure(seconds)
        best = fastest.get(job.side, worker)
        rates = {**best.facts.get("first_turns", {}), job.variant: turn["steps"] / turn["seconds"]}
        slower = worker
        if rates[job.variant] == max(rates.values()):
            fastest[job.side], slower = worker, best
        fastest[job.side].facts["first_turns"] = rates
        if slower is not fastest[job.side]:
            slower.stop()  # now, to free memory

    for_each(lambda _, worker: worker.wait())  # all, before the first is measured
    for_each(compete)
