"""Compiled loops over a dataset on the device: train, evaluate."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, UInt8

from jaxcnn.training.step import (
    Metrics,
    TrainState,
    raw_eval_step,
    raw_train_step,
    zero_metrics,
)


def train_steps(
    state: TrainState,
    metrics: Metrics,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    order: Int[Array, " examples"],
    stop: Int[Array, ""],
    keys: tuple[jax.Array, jax.Array],
    *,
    preprocess: Callable[[jax.Array, jax.Array], jax.Array],
    batch_size: int,
    sharding: NamedSharding,
    skip_nonfinite: bool = False,
) -> tuple[TrainState, Metrics]:
    """Train until `state.step` is `stop` or a loss is not finite, in one compiled loop.

    The number of steps is a run-time value, so chunks of any length share one trace and one
    program. Therefore neither the length of chunks nor an interruption changes a run's bits.

    Args:
      state: training state before the first step.
      metrics: metric sums so far; those of the steps are added.
      images: raw images of the training set.
      labels: labels of the images.
      order: permutation of the examples for the epoch. Each step takes the next `batch_size`
        entries; an incomplete batch at the end is not used.
      stop: step to stop at, in the same epoch.
      keys: random keys of the run, for `preprocess` and for the step; each step folds in its
        number.
      preprocess: `(key, raw images) -> images`.
      batch_size: examples in a step.
      sharding: placement of a batch on the devices.
      skip_nonfinite: undo steps that are not finite; see `step.undo_nonfinite`.
    """
    steps_per_epoch = len(order) // batch_size

    def go_on(carry: tuple[TrainState, Metrics]) -> jax.Array:
        state, metrics = carry
        return (state.step < stop) & jnp.isfinite(metrics["loss"])

    def one_step(carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        first = state.step % steps_per_epoch * batch_size
        rows = jax.lax.dynamic_slice(order, (first,), (batch_size,))
        batch = {"image": images[rows], "label": labels[rows]}
        return raw_train_step(
            *(state, metrics, batch, keys),
            preprocess=preprocess,
            sharding=sharding,
            skip_nonfinite=skip_nonfinite,
        )

    return jax.lax.while_loop(go_on, one_step, (state, metrics))


def evaluate(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    *,
    preprocess: Callable[[jax.Array], jax.Array],
    batch_size: int,
    sharding: NamedSharding,
) -> Metrics:
    """Return metric sums over a set, in a compiled loop: every example counts exactly once.

    Args:
      state: training state to evaluate.
      images: raw images of the set.
      labels: labels of the images.
      preprocess: `raw images -> images`, in one view or several.
      batch_size: examples in a step; it changes the sums by rounding only.
      sharding: placement of a batch on the devices.
    """

    def add_batch(i: jax.Array, metrics: Metrics) -> Metrics:
        rows, mask = _rows(i, batch_size, len(labels))
        batch = {"image": images[rows], "label": labels[rows], "mask": mask}
        return raw_eval_step(state, metrics, batch, preprocess=preprocess, sharding=sharding)

    return jax.lax.fori_loop(0, -(-len(labels) // batch_size), add_batch, zero_metrics())


def _rows(i: jax.Array, batch_size: int, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """Return the rows of the i-th batch and their mask; padding repeats the last row."""
    rows = i * batch_size + jnp.arange(batch_size)
    return jnp.minimum(rows, num_examples - 1), rows < num_examples
