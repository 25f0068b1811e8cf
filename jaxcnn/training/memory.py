"""Memory: what a run needs when it is exhausted, and freed heap memory for the OS."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import RunError, exhausted_memory


def trim() -> None:
    """Return freed memory that glibc's malloc keeps (`malloc_trim`); do nothing elsewhere.

    malloc keeps about 500 MiB after AlexNet's step is compiled, and some for each thread that
    decodes images.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def explain_exhaustion(config: TrainConfig, needs: Callable[[], str]) -> Iterator[None]:
    """Turn the error of exhausted memory into one that says what to lower.

    Args:
      config: config of the run.
      needs: function that returns what needs memory, as `needs_of` does.

    Raises:
      RunError: the memory of a device or of this machine is exhausted.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if (cause := exhausted_memory(error)) is None:
            raise
        streamed = config.dataset.startswith(("folder:", "tfds:"))
        raise RunError(
            f"out of memory: {cause}; {needs()}; the device has "
            f"{_gib(_limit())}; lower `batch_size` (now {config.batch_size:,}; with "
            "`optimizer.accumulate` 2, half of it gives the same updates) or `eval_batch_size` "
            f"(now {config.eval_batch_size:,})"
            + ("" if streamed else ", or stream the dataset from folder:DIR")
        ) from error


def needs_of(dataset: Any, state: Any = None, train_program: Any = None) -> str:
    """Return what needs memory on each device, in words.

    Args:
      dataset: dataset of the run.
      state: training state, if it exists.
      train_program: compiled program of the training steps, if it exists.
    """
    parts = []
    if isinstance(dataset, Dataset):
        arrays = [leaf for leaf in vars(dataset).values() if isinstance(leaf, np.ndarray)]
        parts.append(f"the dataset needs {_gib(sum(array.nbytes for array in arrays))}")
    if state is not None:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        parts.append(f"parameters and optimizer {_gib(size)}")
    if (program := getattr(train_program, "memory_analysis", lambda: None)()) is not None:
        parts.append(f"a training step another {_gib(program.temp_size_in_bytes)}")
    return ", ".join(parts) or "what needs it is unknown before the first step"


def _limit() -> int:
    """Return the bytes that the first device may use; those of this machine for a CPU."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return int(limit)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
    return physical if allowed == resource.RLIM_INFINITY else min(physical, allowed)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.2f} GiB"
