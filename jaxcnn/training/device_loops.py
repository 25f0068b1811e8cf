"""Compiled loops over a set that lies on the device: train, evaluate, predict."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.training import microbatch
from jaxcnn.training.step import (
    Metrics,
    TrainState,
    predict_log_probs,
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
) -> tuple[TrainState, Metrics]:
    """Training steps in one program, until `state.step` is `stop` or a loss is not finite.

    The number of steps is a run-time value: chunks of any length are one trace and one program, so
    where a run is cut into chunks, or interrupted, cannot change its bits.

    Args:
      state: of the step to begin with.
      metrics: sums so far; the steps' own are added.
      images: the training set, as stored.
      labels: of the images.
      order: the epoch's permutation of the examples; the first `batch_size` of them are its first
        step's, what is left at the end is not used.
      stop: the step to stop at, in the same epoch.
      keys: the run's, for `preprocess` and for the step; each step folds its number in.
      preprocess: `(key, stored images) -> images`, what the model takes.
      batch_size: examples a step.
      sharding: how a batch lies on the devices.
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
        return raw_train_step(state, metrics, batch, keys, preprocess=preprocess, sharding=sharding)

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
    """Sums of loss and correct answers over all examples, and their count; to be jitted.

    Args:
      state: whose parameters are evaluated.
      images: the test set, as stored.
      labels: of the images.
      preprocess: stored images to what the model takes, in one view or several.
      batch_size: examples a step; changes the sums by rounding only.
      sharding: how a batch lies on the devices.
    """

    def add_batch(i: jax.Array, metrics: Metrics) -> Metrics:
        rows, mask = _rows(i, batch_size, len(labels))
        batch = {"image": images[rows], "label": labels[rows], "mask": mask}
        return raw_eval_step(state, metrics, batch, preprocess=preprocess, sharding=sharding)

    return jax.lax.fori_loop(0, -(-len(labels) // batch_size), add_batch, zero_metrics())


def predict(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    *,
    preprocess: Callable[[jax.Array], jax.Array],
    batch_size: int,
    sharding: NamedSharding,
) -> Float[Array, "examples classes"]:
    """Log-probabilities of all examples, in order; to be jitted; arguments as `evaluate`'s."""
    num_examples = len(images)

    def one_batch(i: jax.Array) -> jax.Array:
        rows, _ = _rows(i, batch_size, num_examples)
        batch = jax.lax.with_sharding_constraint(preprocess(images[rows]), sharding)
        num_microbatches = microbatch.choose_number(
            state.apply_fn, state.params, batch, sharding.device_set
        )
        return predict_log_probs(state, batch, batch_size, num_microbatches=num_microbatches)

    log_probs = jax.lax.map(one_batch, jnp.arange(-(-num_examples // batch_size)))
    return log_probs.reshape(-1, log_probs.shape[-1])[:num_examples]


def _rows(i: jax.Array, batch_size: int, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """Rows of the i-th batch, and which of them are no padding; padding repeats the last row."""
    rows = i * batch_size + jnp.arange(batch_size)
    return jnp.minimum(rows, num_examples - 1), rows < num_examples
