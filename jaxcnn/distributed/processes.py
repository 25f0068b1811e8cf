"""Several processes that train as one, on JAX's distributed runtime.

All processes run the same program on the same global arrays; process 0 writes the files and prints.
A process that died is noticed at the next sum over devices or, if its machine is gone as well, by
its missing heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcnn.cli import one_line_errors
from jaxcnn.errors import RunError, UserError

HEARTBEAT_SECONDS = 30  # JAX's default is 100
JOIN_SECONDS = 120  # for which a process waits for the others to start; JAX's default is 300


class CollectiveError(RunError):
    """A failure that all processes of the run raise at the same step.

    Each process may then end in an orderly way. Any other error is raised by one process alone,
    which must end at once: the others would wait for it, and it for them.
    """


@contextlib.contextmanager
def initialize(
    multihost: bool,
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
) -> Iterator[None]:
    """Join the other processes of the run, if there are any, for the time of the context.

    There are others with `multihost` and under launchers that say so: SLURM's `srun`, and GKE for
    the hosts of a TPU slice. The other arguments are those of `jax.distributed.initialize`. An
    error of this process alone ends the process, with its message and exit status.

    A process waits for the others for JAXCNN_JOIN_SECONDS, by default JOIN_SECONDS.

    Raises:
      UserError: there are no settings by which to find the others.
    """
    if not has_others(multihost):
        check_devices()
        yield
        return
    if not jax.distributed.is_initialized():
        _initialize(coordinator, num_processes, process_id)
    try:
        check_devices()
        yield
    except CollectiveError:
        raise
    except BaseException as error:
        _exit(error)


def check_devices() -> None:
    """Check that JAX finds devices.

    Raises:
      UserError: JAX finds none, for example because JAX_PLATFORMS names a platform without one.
    """
    try:
        jax.devices()
    except Exception as error:  # a RuntimeError; with JAX_PLATFORMS=cuda an AssertionError
        cause = str(error).partition("\n")[0].partition(" (set ")[0]
        raise UserError(
            f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}, and JAX finds no such "
            f"device; set it to cpu or unset it. The cause: {cause or type(error).__name__}"
        ) from None


def is_process_0() -> bool:
    """Return whether this process writes the files and prints."""
    return jax.process_index() == 0


def max_over_processes(value: int) -> int:
    """Return the largest value over all processes, each of which must call this."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def any_process(flag: bool) -> bool:
    """Return whether the flag is True in any process; each must call this."""
    return bool(max_over_processes(int(flag)))


def barrier() -> None:
    """Wait until all processes have come here."""
    max_over_processes(0)


def has_others(multihost: bool) -> bool:
    """Return whether the run has several processes: with `multihost`, or as its launcher says.

    Raises:
      UserError: the launcher is SLURM, and its number of tasks is not a number.
    """
    num_tasks = os.environ.get("SLURM_NTASKS", "1")
    if "SLURM_STEP_NODELIST" in os.environ and not num_tasks.isdecimal():
        raise UserError(
            f"SLURM_NTASKS is {num_tasks!r}; expected a whole number; use srun or unset it"
        )
    in_slurm = "SLURM_STEP_NODELIST" in os.environ and int(num_tasks) > 1
    return multihost or in_slurm or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    seconds, failures = _join_seconds(), list[Exception]()

    def join() -> None:
        try:
            jax.distributed.initialize(
                *(coordinator, num_processes, process_id),
                initialization_timeout=2 * seconds,  # JAX would abort with a stack trace
                heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            )
        except Exception as error:
            failures.append(error)

    # In a thread: while the main thread waits inside of JAX, Python handles no signal.
    thread = threading.Thread(target=join, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        if thread.is_alive():
            where = f" at {coordinator}" if coordinator else ""
            raise RunError(
                f"this process waited {seconds} s for the other processes of the run{where}; start "
                "all of them again, with a larger JAXCNN_JOIN_SECONDS if they start further apart"
            )
    except BaseException as error:
        _exit(error)
    for failure in failures:
        if not isinstance(failure, KeyError | ValueError | RuntimeError):
            raise failure
        raise UserError(
            f"no other processes of the run were found ({failure}); expected a TPU slice, SLURM or "
            "Kubernetes; elsewhere, give each process `coordinator` HOST:PORT, `num_processes` N "
            "and `process_id` I"
        ) from None


def _join_seconds() -> int:
    text = os.environ.get("JAXCNN_JOIN_SECONDS", str(JOIN_SECONDS))
    if not text.isdecimal() or not 1 <= int(text[:10]) <= 86_400:
        raise UserError(
            f"JAXCNN_JOIN_SECONDS is {text!r}; expected whole seconds from 1 to 86400, or unset it"
        )
    return int(text)


def _is_lost_connection(error: BaseException) -> bool:
    if isinstance(error, ValueError) and not isinstance(error, UserError):
        return "Gloo" in str(error)  # at the start of a collective of CPUs
    return isinstance(error, jax.errors.JaxRuntimeError)


def _exit(error: BaseException) -> None:
    if _is_lost_connection(error):
        error = RunError(
            f"process {jax.process_index()} of {jax.process_count()} lost the others "
            f"({str(error).splitlines()[0]}); start all of them again, and the run goes on from "
            "its last checkpoint"
        )
    status: Any = 1
    try:
        with one_line_errors():
            raise error
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
