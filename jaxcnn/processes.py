"""Several processes that train as one, on JAX's distributed runtime: how they meet, agree and end.

All of them run the same program on the same global arrays; what is written and said comes from the
first. A process that is gone is noticed at the next sum over devices or, where its machine is gone
too and says nothing, by its missing heartbeat.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxcnn.config import TrainConfig
from jaxcnn.errors import RunError, UserError, one_line_errors

HEARTBEAT_SECONDS = 30  # JAX's own is 100


@contextlib.contextmanager
def joined(config: TrainConfig) -> Iterator[None]:
    """With `--multihost`, or if the launcher says so, this process is one of several of the run.

    Launchers that do are SLURM, for the tasks of `srun`, and GKE, for the hosts of a TPU slice.

    A failure of this process alone ends it at once, with its message and exit status: an orderly
    end would wait for the others, and they for a sum that this process takes no part in.

    Raises:
      UserError: there are no settings by which to find the others.
    """
    if not (config.multihost or _launched_with_others()):
        yield
        return
    if not jax.distributed.is_initialized():
        _initialize(config)
    try:
        yield
    except BaseException as error:
        if isinstance(error, RunError) and error.everywhere:
            raise
        _exit(error)


def is_first() -> bool:
    """Whether this process is the one that writes files and speaks."""
    return jax.process_index() == 0


def largest(value: int) -> int:
    """The largest value of all processes, each of which calls this at the same time."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.int32(value)).max())


def _launched_with_others() -> bool:
    in_slurm = "SLURM_STEP_NODELIST" in os.environ and int(os.environ.get("SLURM_NTASKS", 1)) > 1
    return in_slurm or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def _initialize(config: TrainConfig) -> None:
    try:
        jax.distributed.initialize(
            config.coordinator,
            config.num_processes,
            config.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--multihost finds no other processes ({error}); it does on a TPU slice, in SLURM and "
            "in Kubernetes; elsewhere, give each process --coordinator HOST:PORT "
            "--num-processes N --process-id I"
        ) from None


def _exit(error: BaseException) -> None:
    if isinstance(error, jax.errors.JaxRuntimeError):
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
