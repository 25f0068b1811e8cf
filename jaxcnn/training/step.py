"""A training step and an evaluation step: pure functions of their arguments, jitted by the caller.

A batch is a dict: `image` (what the model takes), `label` (int [batch]) and, in evaluation, `mask`
(bool [batch], False for padding); in evaluation there may be several images for each label, views
of one example, one after the other. Metrics are sums and a count, so that they can be added over
steps and devices and divided once, on the host.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from flax.training import train_state
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from jaxcnn.errors import RunError
from jaxcnn.models import network
from jaxcnn.training import microbatch

Batch = dict[str, jax.Array]
Metrics = dict[str, Any]  # "loss", "correct", "count": sums over examples


class TrainState(train_state.TrainState):
    """Step, parameters and optimizer state, with the functions that go with them."""

    loss_fn: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
    """`(outputs, labels) -> [batch]`: the loss of each example, which training minimizes."""
    eval_loss_fn: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
    """The loss that evaluation reports: another one where labels are smoothed. It is minus the
    log-probability that the label has by the outputs."""

    @property
    def eval_params(self) -> Any:
        """What is evaluated and exported: the mean that the optimizer keeps, or the parameters."""
        return optax.tree_utils.tree_get(self.opt_state, "ema_params", self.params)

    def apply_gradients(self, *, grads: Any, **replacements: Any) -> TrainState:
        """Return the state after one update of the optimizer."""
        # Under strict promotion, optax refuses its own powers of a float and a count of steps.
        with jax.numpy_dtype_promotion("standard"):
            return super().apply_gradients(grads=grads, **replacements)


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """-log softmax(logits)[label] of each example, in nats, in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def smoothed_cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"], *, smoothing: float
) -> Float[Array, " batch"]:
    """Cross-entropy with 1 - smoothing of the label and smoothing of all classes alike.

    In nats, in float32; PyTorch's `CrossEntropyLoss(label_smoothing=...)`.

    References:
      Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer
      Vision", 2016, section 7.
    """
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[-1], dtype=jnp.float32), smoothing
    )
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    image_shape: tuple[int, ...],
    key: jax.Array,
    *,
    label_smoothing: float = 0.0,
) -> TrainState:
    """A state at step 0.

    Args:
      model: called as `model(images, train=...)`; its own `loss_fn`, if it has one, replaces
        cross-entropy.
      tx: the optimizer.
      image_shape: of one image, without the batch dimension.
      key: decides the initial parameters.
      label_smoothing: of cross-entropy in training, in [0, 1); not of a model's own loss.
    """
    params = model.init(key, jnp.zeros((1, *image_shape), jnp.float32))["params"]
    loss_fn = eval_loss_fn = network.loss_fn(model) or cross_entropy
    if label_smoothing:
        loss_fn = _smoothing_loss(label_smoothing)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        loss_fn=loss_fn,
        eval_loss_fn=eval_loss_fn,
    )


@functools.cache  # one object for all states: jit compares them by what they hold
def _smoothing_loss(smoothing: float) -> Callable[[Any, jax.Array], jax.Array]:
    return functools.partial(smoothed_cross_entropy, smoothing=smoothing)


def zero_metrics() -> Metrics:
    """Return zero-initialized metric sums, on the host."""
    return {
        "loss": np.zeros((), np.float32),
        "correct": np.zeros((), np.int32),
        "count": np.zeros((), np.int32),
    }


def train_step(
    state: TrainState, batch: Batch, key: jax.Array, *, num_microbatches: int = 1
) -> tuple[TrainState, Metrics]:
    """One update by the mean loss of a batch; its randomness comes from (key, state.step).

    Args:
      state: of the step.
      batch: what is learnt from.
      key: of the run.
      num_microbatches: number of equal parts that are processed one after the other; dropout
        draws again for each, everything else changes by rounding only.
    """
    dropout_key = jax.random.fold_in(key, state.step)

    def gradients(batch: Batch, key: jax.Array) -> tuple[Any, Metrics]:
        def mean_loss(params: Any) -> tuple[jax.Array, Metrics]:
            outputs = state.apply_fn(
                {"params": params}, batch["image"], train=True, rngs={"dropout": key}
            )
            losses = state.loss_fn(outputs, batch["label"])
            correct = (_answers(outputs) == batch["label"]).sum(dtype=jnp.int32)
            count = jnp.int32(len(losses))
            return losses.mean(), {"loss": losses.sum(), "correct": correct, "count": count}

        return jax.grad(mean_loss, has_aux=True)(state.params)

    if num_microbatches == 1:
        grads, metrics = gradients(batch, dropout_key)
        return state.apply_gradients(grads=grads), metrics

    def add_part(sums: tuple[Any, Metrics], part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, gradients(*part)), None

    zeros = jax.tree.map(jnp.zeros_like, state.params), zero_metrics()
    in_parts = (
        microbatch.split(batch, num_microbatches),
        jax.random.split(dropout_key, num_microbatches),
    )
    (sums, metrics), _ = jax.lax.scan(add_part, zeros, in_parts)
    grads = jax.tree.map(lambda leaf: leaf / num_microbatches, sums)
    return state.apply_gradients(grads=grads), metrics


def raw_train_step(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    keys: tuple[jax.Array, jax.Array],
    *,
    preprocess: Callable[[jax.Array, jax.Array], jax.Array],
    sharding: NamedSharding,
) -> tuple[TrainState, Metrics]:
    """A training step on images as stored; its metrics are added; arguments as `train_steps`'s."""
    image_key, step_key = keys
    image = preprocess(jax.random.fold_in(image_key, state.step), batch["image"])
    # Or XLA gathers and transforms anew for each of the many that read it: 1.1 to 1.2 times the
    # time of LeNet-5's step of 512 images on a CPU.
    image = jax.lax.optimization_barrier(image)
    batch = jax.lax.with_sharding_constraint(batch | {"image": image}, sharding)
    num_microbatches = microbatch.choose_number(
        state.apply_fn, state.params, image, sharding.device_set
    )
    state, step_metrics = train_step(state, batch, step_key, num_microbatches=num_microbatches)
    return state, jax.tree.map(jnp.add, metrics, step_metrics)


def _answers(outputs: Float[Array, "batch classes"]) -> Int[Array, " batch"]:
    """Return the class of the largest output, as int32."""
    return jax.lax.argmax(outputs, 1, jnp.int32)


def eval_step(state: TrainState, batch: Batch, *, num_microbatches: int = 1) -> Metrics:
    """Metrics of a batch, in parts as in `train_step`; where the mask is False, of nothing."""
    labels, mask = batch["label"], batch["mask"]
    log_probs = predict_log_probs(
        state, batch["image"], len(labels), num_microbatches=num_microbatches
    )
    losses = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    losses = jnp.where(mask, losses, 0)
    correct = mask & (_answers(log_probs) == labels)
    correct, count = correct.sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32)
    return {"loss": losses.sum(), "correct": correct, "count": count}


def predict_log_probs(
    state: TrainState,
    images: Float[Array, "examples*views height width channels"],
    num_examples: int,
    *,
    num_microbatches: int = 1,
) -> Float[Array, "examples classes"]:
    """Log-probability of each class; of several views of an example, the probabilities' mean.

    What a class is given is `-eval_loss_fn(outputs, class)`: log softmax for cross-entropy, and for
    the criterion of 1998 a little less, since none of the classes has a probability too.

    Args:
      state: whose parameters are evaluated.
      images: what the model takes; the views of an example one after the other.
      num_examples: how many there are, with equally many views each.
      num_microbatches: equal parts in which the images go through.

    References:
      Krizhevsky et al. 2012, section 4.1.
    """
    apply = functools.partial(state.apply_fn, {"params": state.eval_params}, train=False)
    outputs = microbatch.apply(apply, images, num_microbatches)
    num_images, num_classes = outputs.shape
    classes = jnp.broadcast_to(jnp.arange(num_classes)[:, None], (num_classes, num_images))
    losses = jax.vmap(state.eval_loss_fn, in_axes=(None, 0), out_axes=-1)(outputs, classes)
    of_views = -losses.reshape(num_examples, -1, num_classes)
    return jax.nn.logsumexp(of_views, axis=1) - math.log(of_views.shape[1])


def raw_eval_step(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array], jax.Array],
    sharding: NamedSharding,
) -> Metrics:
    """An evaluation step on images as stored; its metrics are added; arguments as `evaluate`'s."""
    batch = batch | {"image": preprocess(batch["image"])}
    batch = jax.lax.with_sharding_constraint(batch, sharding)
    num_microbatches = microbatch.choose_number(
        state.apply_fn, state.params, batch["image"], sharding.device_set
    )
    step_metrics = eval_step(state, batch, num_microbatches=num_microbatches)
    return jax.tree.map(jnp.add, metrics, step_metrics)


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
