"""A whole test set, exactly: each example counts once, the last batch's padding for nothing."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn import parts
from jaxcnn.errors import RunError
from jaxcnn.step import (
    Batch,
    Metrics,
    TrainState,
    eval_step,
    log_probabilities,
    zero_metrics,
)


def evaluate(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    *,
    transform: Callable[[jax.Array], jax.Array],
    batch_size: int,
    sharding: NamedSharding,
) -> Metrics:
    """Sums of loss and correct answers over all examples, and their count; to be jitted.

    Args:
      state: whose parameters are evaluated.
      images: the test set, as stored.
      labels: of the images.
      transform: stored images to what the model takes, in one view or several.
      batch_size: examples a step; changes the sums by rounding only.
      sharding: how a batch lies on the devices.
    """

    def add_batch(i: jax.Array, metrics: Metrics) -> Metrics:
        rows, mask = _rows(i, batch_size, len(labels))
        batch = {"image": images[rows], "label": labels[rows], "mask": mask}
        return evaluate_stored(state, metrics, batch, transform=transform, sharding=sharding)

    return jax.lax.fori_loop(0, -(-len(labels) // batch_size), add_batch, zero_metrics())


def evaluate_stored(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    *,
    transform: Callable[[jax.Array], jax.Array],
    sharding: NamedSharding,
) -> Metrics:
    """An evaluation step on images as stored; its metrics are added; arguments as `evaluate`'s."""
    batch = batch | {"image": transform(batch["image"])}
    batch = jax.lax.with_sharding_constraint(batch, sharding)
    num_parts = parts.num_parts(state.apply_fn, state.params, batch["image"], sharding.device_set)
    step_metrics = eval_step(state, batch, num_parts=num_parts)
    return jax.tree.map(jnp.add, metrics, step_metrics)


def predict(
    state: TrainState,
    images: UInt8[Array, "examples height width channels"],
    *,
    transform: Callable[[jax.Array], jax.Array],
    batch_size: int,
    sharding: NamedSharding,
) -> Float[Array, "examples classes"]:
    """Log-probabilities of all examples, in order; to be jitted; arguments as `evaluate`'s."""
    num_examples = len(images)

    def one_batch(i: jax.Array) -> jax.Array:
        rows, _ = _rows(i, batch_size, num_examples)
        batch = jax.lax.with_sharding_constraint(transform(images[rows]), sharding)
        num_parts = parts.num_parts(state.apply_fn, state.params, batch, sharding.device_set)
        return log_probabilities(state, batch, batch_size, num_parts=num_parts)

    by_class = jax.lax.map(one_batch, jnp.arange(-(-num_examples // batch_size)))
    return by_class.reshape(-1, by_class.shape[-1])[:num_examples]


def mean_metrics(metrics: Metrics) -> dict[str, float]:
    """Sums to means, on the host: `loss` in nats an example, `accuracy` in [0, 1].

    Raises:
      RunError: they are the sums of no example.
    """
    sums = jax.device_get(metrics)
    count = int(sums["count"])
    if not count:
        raise RunError("there is no example to average over: every image of the set is a bad one")
    return {"loss": float(sums["loss"]) / count, "accuracy": int(sums["correct"]) / count}


def top_accuracy(
    log_probabilities: Float[np.ndarray, "examples classes"],
    labels: Int[np.ndarray, " examples"],
    k: int,
) -> float:
    """The part of the examples whose label is among the `k` likeliest classes; ties count."""
    of_labels = np.take_along_axis(log_probabilities, labels[:, None], axis=1)
    return float(((log_probabilities > of_labels).sum(axis=1) < k).mean())


def confusion_matrix(
    labels: Int[np.ndarray, " examples"],
    predictions: Int[np.ndarray, " examples"],
    num_classes: int,
) -> Int[np.ndarray, "num_classes num_classes"]:
    """How many examples of each class (row) were called each class (column)."""
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall(
    confusion: Int[np.ndarray, "classes classes"],
) -> tuple[Float[np.ndarray, " classes"], Float[np.ndarray, " classes"]]:
    """Precision and recall of each class, in [0, 1]; NaN for a class never called, or absent."""
    correct = np.diag(confusion).astype(float)
    with np.errstate(invalid="ignore"):
        return correct / confusion.sum(axis=0), correct / confusion.sum(axis=1)


def _rows(i: jax.Array, batch_size: int, num_examples: int) -> tuple[jax.Array, jax.Array]:
    """Rows of the i-th batch, and which of them are no padding; padding repeats the last row."""
    rows = i * batch_size + jnp.arange(batch_size)
    return jnp.minimum(rows, num_examples - 1), rows < num_examples
