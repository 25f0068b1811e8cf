"""A training step and an evaluation step: pure functions of their arguments, jitted by the caller.

A batch is a dict: `image` (what the model takes), `label` (int [batch]) and, in evaluation, `mask`
(bool [batch], False for padding). Metrics are sums and a count, so that they can be added over
steps and devices and divided once, on the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from flax.training import train_state
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int, UInt8

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]  # "loss", "correct", "count": sums over examples


class TrainState(train_state.TrainState):
    """Step, parameters and optimizer state, with the functions that go with them."""

    loss_fn: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
    """`(outputs, labels) -> [batch]`: the loss of each example."""


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """-log softmax(logits)[label] of each example, in nats, in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    key: jax.Array,
) -> TrainState:
    """A state at step 0.

    Args:
      model: called as `model(images, train=...)`; its own `loss_fn`, if it has one, replaces
        cross-entropy.
      tx: the optimizer.
      image_shape: of one image, without the batch dimension.
      key: decides the initial parameters.
    """
    params = model.init(key, jnp.zeros((1, *image_shape)))["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        loss_fn=getattr(model, "loss_fn", cross_entropy),
    )


def zero_metrics() -> Metrics:
    """The sums of no example, for `train_step`'s metrics."""
    return {
        "loss": jnp.zeros((), jnp.float32),
        "correct": jnp.zeros((), jnp.int32),
        "count": jnp.zeros((), jnp.int32),
    }


def train_step(state: TrainState, batch: Batch, key: jax.Array) -> tuple[TrainState, Metrics]:
    """One update by the mean loss of a batch; its randomness comes from (key, state.step)."""
    dropout_key = jax.random.fold_in(key, state.step)

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[Any, jax.Array]]:
        outputs = state.apply_fn(
            {"params": params}, batch["image"], train=True, rngs={"dropout": dropout_key}
        )
        losses = state.loss_fn(outputs, batch["label"])
        return losses.mean(), (outputs, losses)

    grads, (outputs, losses) = jax.grad(mean_loss, has_aux=True)(state.params)
    correct = outputs.argmax(-1) == batch["label"]
    metrics = {"loss": losses.sum(), "correct": correct.sum(), "count": jnp.int32(len(losses))}
    return state.apply_gradients(grads=grads), metrics


def train_steps(
    state: TrainState,
    metrics: Metrics,
    images: UInt8[Array, "examples height width channels"],
    labels: Int[Array, " examples"],
    order: Int[Array, " examples"],
    stop: Int[Array, ""],
    keys: tuple[jax.Array, jax.Array],
    *,
    transform: Callable[[jax.Array, jax.Array], jax.Array],
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
      keys: the run's, for `transform` and for the step; each step folds its number in.
      transform: `(key, stored images) -> images`, what the model takes.
      batch_size: examples a step.
      sharding: how a batch lies on the devices.
    """
    image_key, step_key = keys
    steps_per_epoch = len(order) // batch_size

    def go_on(carry: tuple[TrainState, Metrics]) -> jax.Array:
        state, metrics = carry
        return (state.step < stop) & jnp.isfinite(metrics["loss"])

    def one_step(carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        first = state.step % steps_per_epoch * batch_size
        rows = jax.lax.dynamic_slice(order, (first,), (batch_size,))
        image = transform(jax.random.fold_in(image_key, state.step), images[rows])
        # Or XLA gathers and transforms anew for each of the many that read it: 1.1 to 1.2 times the
        # time of LeNet-5's step of 512 images on a CPU.
        image = jax.lax.optimization_barrier(image)
        batch = {"image": image, "label": labels[rows]}
        batch = jax.lax.with_sharding_constraint(batch, sharding)
        state, step_metrics = train_step(state, batch, step_key)
        return state, jax.tree.map(jnp.add, metrics, step_metrics)

    return jax.lax.while_loop(go_on, one_step, (state, metrics))


def eval_step(state: TrainState, batch: Batch) -> Metrics:
    """Metrics of a batch; examples whose mask is False count for nothing."""
    outputs = state.apply_fn({"params": state.params}, batch["image"], train=False)
    losses = jnp.where(batch["mask"], state.loss_fn(outputs, batch["label"]), 0)
    correct = batch["mask"] & (outputs.argmax(-1) == batch["label"])
    return {"loss": losses.sum(), "correct": correct.sum(), "count": batch["mask"].sum()}
