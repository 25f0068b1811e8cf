"""The training step and the evaluation step: pure functions, jitted by the caller.

A batch is a dict with `image` (preprocessed images), `label` (int [batch]) and, in evaluation,
`mask` (bool [batch], False for padding). In evaluation an example may have several images, its
views, which are consecutive. Metrics are sums and a count: they are added over steps and devices
and divided once, on the host.
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
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxcnn.errors import RunError
from jaxcnn.models import network
from jaxcnn.training import cores, microbatch

Batch = dict[str, jax.Array]
Metrics = dict[str, Any]  # "loss", "correct", "count": sums over examples


class TrainState(train_state.TrainState):
    """Step, parameters, optimizer state, and the functions that use them."""

    step: Any = struct.field(pytree_node=True)
    params: Any = struct.field(pytree_node=True)
    loss_fn: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
    """`(outputs, labels) -> [batch]`: the loss of each example, which training minimizes."""
    eval_loss_fn: Callable[[Any, jax.Array], jax.Array] = struct.field(pytree_node=False)
    """The loss that evaluation reports: minus the log-probability of the label. It differs from
    `loss_fn` if labels are smoothed."""

    @property
    def eval_params(self) -> Any:
        """Return the parameters to evaluate and export: their moving average, if there is one."""
        average = optax.tree_utils.tree_get(self.opt_state, "ema_params", self.params)

        def is_masked(mean: Any) -> bool:  # frozen parameters have no average
            return isinstance(mean, optax.MaskedNode)

        if not any(map(is_masked, jax.tree.leaves(average, is_leaf=is_masked))):
            return average

        def choose(mean: Any, param: Any) -> Any:
            return param if is_masked(mean) else mean

        return jax.tree.map(choose, average, self.params, is_leaf=is_masked)

    def apply_gradients(self, *, grads: Any, **replacements: Any) -> TrainState:
        """Return the state after one update of the optimizer."""
        # Under strict promotion, optax's own power of a float by an integer count raises an error.
        with jax.numpy_dtype_promotion("standard"):
            return super().apply_gradients(grads=grads, **replacements)


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
    """Return -log softmax(logits)[label] of each example, in nats, in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def smoothed_cross_entropy(
    logits: Float[Array, "batch classes"],
    labels: Int[Array | np.ndarray, " batch"],
    *,
    smoothing: float,
) -> Float[Array, " batch"]:
    """Return the cross-entropy with smoothed labels, in nats, in float32.

    The target is 1 - smoothing on the label plus smoothing spread evenly over all classes, as in
    PyTorch's `CrossEntropyLoss(label_smoothing=...)`.

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
    class_weights: tuple[float, ...] | None = None,
) -> TrainState:
    """Create a training state at step 0.

    Args:
      model: a `models.network.Network`; its own `loss_fn`, if any, replaces cross-entropy.
      tx: optimizer.
      image_shape: shape of one image, without the batch dimension.
      key: random key of the initial parameters.
      label_smoothing: smoothing of the labels in training, in [0, 1); for cross-entropy only.
      class_weights: factor on the training loss of the examples of each class.
    """
    params = model.init(key, jnp.zeros((1, *image_shape), jnp.float32))["params"]
    loss_fn = eval_loss_fn = network.loss_fn(model) or cross_entropy
    if label_smoothing:
        loss_fn = _smoothing_loss(label_smoothing)
    if class_weights is not None:
        loss_fn = _weighted_loss(loss_fn, class_weights)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        apply_fn=model.apply,
        params=params,
        tx=tx,
        opt_state=tx.init(params),
        loss_fn=loss_fn,
        eval_loss_fn=eval_loss_fn,
    )


@functools.cache  # one object for equal arguments, because jit compares functions by identity
def _smoothing_loss(smoothing: float) -> Callable[[Any, jax.Array], jax.Array]:
    return functools.partial(smoothed_cross_entropy, smoothing=smoothing)


@functools.cache
def _weighted_loss(
    loss_fn: Callable[[Any, jax.Array], jax.Array], weights: tuple[float, ...]
) -> Callable[[Any, jax.Array], jax.Array]:
    def weighted(outputs: Any, labels: jax.Array) -> jax.Array:
        return jnp.asarray(weights, jnp.float32)[labels] * loss_fn(outputs, labels)

    return weighted


def balanced_weights(labels: Int[np.ndarray, " examples"], num_classes: int) -> tuple[float, ...]:
    """Return the mean size of a class divided by the size of each class, as scikit-learn does.

    The mean weight of an example is 1, so the learning rate keeps its meaning.

    Args:
      labels: labels of the training set.
      num_classes: number of classes, those without examples included.
    """
    sizes = np.bincount(labels, minlength=num_classes)
    return tuple((len(labels) / (num_classes * np.maximum(sizes, 1))).tolist())


def zero_metrics() -> Metrics:
    """Return zero-initialized metric sums, on the host."""
    return {
        "loss": np.zeros((), np.float32),
        "correct": np.zeros((), np.int32),
        "count": np.zeros((), np.int32),
    }


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Return whether no array of floats in a tree has a NaN or an infinite value."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.array([jnp.isfinite(x).all() for x in floats]).all()


def undo_nonfinite(
    before: TrainState, after: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """Undo a step whose loss, new parameters or new optimizer state are not finite.

    A gradient that is not finite makes one of these not finite.

    Returns:
      The state after the step, and its metric sums. For a step that is undone, the state before it
      with the number of the next step, and zeros.
    """
    finite = all_finite((metrics["loss"], after.params, after.opt_state))
    undone = before.replace(step=after.step), jax.tree.map(jnp.zeros_like, metrics)
    # A select would be fused with the update, which would change its rounding.
    return jax.lax.cond(finite, lambda: (after, metrics), lambda: undone)


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    microbatch_size: int | None = None,
    axes: tuple[str, ...] = (),
) -> tuple[TrainState, Metrics]:
    """Update the state by the gradient of the mean loss of a batch.

    The randomness of the step is a function of (key, state.step).

    Args:
      state: training state before the step; donated by the caller.
      batch: `image` and `label`.
      key: random key of the run.
      microbatch_size: images of a microbatch; all are processed one after the other. The last one
        is filled up with images that do not count. Dropout draws again for each microbatch;
        otherwise the size changes the result by rounding only. By default, the whole batch.
      axes: within `shard_map`, the axes over which the batch is split; dropout would draw the same
        for each share.

    Returns:
      The state after the step, and the metric sums of the batch before it.
    """
    dropout_key = jax.random.fold_in(key, state.step)
    num_images = len(batch["label"])
    size = microbatch_size or num_images

    def sums(part: Batch, key: jax.Array) -> tuple[Any, Metrics]:
        def loss(params: Any) -> tuple[jax.Array, Metrics]:
            outputs = state.apply_fn(
                {"params": params}, part["image"], train=True, rngs={"dropout": key}
            )
            losses = state.loss_fn(outputs, part["label"])
            correct = _answers(outputs) == part["label"]
            count = jnp.int32(len(correct))
            if "counts" in part:
                losses, correct = jnp.where(part["counts"], losses, 0), correct & part["counts"]
                count = part["counts"].sum(dtype=jnp.int32)
            total = losses.sum()
            return total, {"loss": total, "correct": correct.sum(dtype=jnp.int32), "count": count}

        return jax.grad(loss, has_aux=True)(state.params)

    def add_part(total: Any, part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, sums(*part)), None

    if size == num_images:
        grads, metrics = sums(batch, dropout_key)
    else:
        examples = {"image": batch["image"], "label": batch["label"]}
        parts, left_over = microbatch.split_step(examples, dropout_key, size)
        rows = jnp.arange(parts[0]["label"].size).reshape(-1, size)
        if rows.size > num_images:
            parts[0]["counts"] = rows < num_images
        total = jax.tree.map(jnp.zeros_like, state.params), zero_metrics()
        total, _ = jax.lax.scan(add_part, total, parts)
        for part in left_over:
            total, _ = add_part(total, part)
        grads, metrics = total
    if axes:
        grads, metrics = cores.add_up((grads, metrics), axes)
        num_images *= jax.lax.psum(1, axes)
    grads = jax.tree.map(lambda leaf: leaf / num_images, grads)
    return state.apply_gradients(grads=grads), metrics


def raw_train_step(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    keys: tuple[jax.Array, jax.Array],
    *,
    preprocess: Callable[[jax.Array, jax.Array], jax.Array],
    sharding: NamedSharding,
    skip_nonfinite: bool = False,
) -> tuple[TrainState, Metrics]:
    """Preprocess raw images, train on them, and add the metrics; see `device_loops.train_steps`."""
    image_key, step_key = keys
    image = preprocess(jax.random.fold_in(image_key, state.step), batch["image"])
    devices: set[Any] = sharding.device_set
    if {device.platform for device in devices} != {"gpu"}:
        # Without the barrier, XLA repeats gather and preprocessing for each operation that reads
        # the images: on a CPU, LeNet-5's step of 512 images then takes 1.1 to 1.2 times as long. On
        # a GPU the barrier would write float32 images that AlexNet reads in bfloat16.
        image = jax.lax.optimization_barrier(image)
    batch = jax.lax.with_sharding_constraint(batch | {"image": image}, sharding)
    is_by_core = cores.are_devices(sharding) and cores.suits(state.apply_fn, state.params, image)
    step = _step_by_core if is_by_core else _step_at_once
    after, step_metrics = step(state, batch, step_key, sharding)
    if skip_nonfinite:
        after, step_metrics = undo_nonfinite(state, after, step_metrics)
    return after, jax.tree.map(jnp.add, metrics, step_metrics)


def _step_at_once(
    state: TrainState, batch: Batch, key: jax.Array, sharding: NamedSharding
) -> tuple[TrainState, Metrics]:
    """Compute a step in one program for all devices, which XLA partitions."""
    devices: set[Any] = sharding.device_set
    size = microbatch.choose_size(state.apply_fn, state.params, batch["image"], devices, train=True)
    return train_step(state, batch, key, microbatch_size=size)


def _step_by_core(
    state: TrainState, batch: Batch, key: jax.Array, sharding: NamedSharding
) -> tuple[TrainState, Metrics]:
    """Compute a step whose gradients each core computes for its own images; exchange them once."""
    size = cores.microbatch_size(state.apply_fn, state.params, batch["image"], sharding, train=True)
    step = functools.partial(train_step, microbatch_size=size, axes=tuple(sharding.mesh.axis_names))
    return cores.by_core(step, sharding, PartitionSpec())(state, batch, key)


def _answers(outputs: Float[Array, "batch classes"]) -> Int[Array, " batch"]:
    """Return the class of the largest output, as int32."""
    return jax.lax.argmax(outputs, 1, jnp.int32)


def eval_step(state: TrainState, batch: Batch, *, sharding: NamedSharding | None = None) -> Metrics:
    """Return metric sums over the examples whose mask is True; see `predict_log_probs`."""
    labels, mask = batch["label"], batch["mask"]
    num_views = len(batch["image"]) // len(labels)
    log_probs = predict_log_probs(state, batch["image"], num_views, sharding=sharding)
    losses = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    losses = jnp.where(mask, losses, 0)
    correct = mask & (_answers(log_probs) == labels)
    correct, count = correct.sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32)
    return {"loss": losses.sum(), "correct": correct, "count": count}


def predict_log_probs(
    state: TrainState,
    images: Float[Array, "images height width channels"],
    num_views: int = 1,
    *,
    sharding: NamedSharding | None = None,
) -> Float[Array, "examples classes"]:
    """Return the log-probability of each class, of the mean probability over an example's views.

    The log-probability of a class is `-eval_loss_fn(outputs, class)`: log softmax for
    cross-entropy. For the criterion of 1998 the probabilities sum to less than 1, because "none of
    the classes" has a probability, too.

    Args:
      state: training state to evaluate.
      images: preprocessed images; the views of an example are consecutive.
      num_views: number of views of each example.
      sharding: how the devices share the images, which are computed in microbatches that suit
        the devices. By default, all images at once.

    References:
      Krizhevsky et al. 2012, section 4.1.
    """
    apply = functools.partial(state.apply_fn, train=False)
    variables = {"params": state.eval_params}
    if sharding is None:
        outputs = apply(variables, images)
    else:
        outputs = cores.forward(apply, variables, images, sharding)
    num_images, num_classes = outputs.shape
    classes = jnp.broadcast_to(jnp.arange(num_classes)[:, None], (num_classes, num_images))
    losses = jax.vmap(state.eval_loss_fn, in_axes=(None, 0), out_axes=-1)(outputs, classes)
    of_views = -losses.reshape(-1, num_views, num_classes)
    return jax.nn.logsumexp(of_views, axis=1) - math.log(num_views)


def raw_eval_step(
    state: TrainState,
    metrics: Metrics,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array], jax.Array],
    sharding: NamedSharding,
) -> Metrics:
    """Preprocess raw images, evaluate them, and add the metrics; see `device_loops.evaluate`."""
    batch = batch | {"image": preprocess(batch["image"])}
    batch = jax.lax.with_sharding_constraint(batch, sharding)
    step_metrics = eval_step(state, batch, sharding=sharding)
    return jax.tree.map(jnp.add, metrics, step_metrics)


def mean_metrics(metrics: Metrics) -> dict[str, float]:
    """Divide metric sums by their count, on the host: `loss` in nats, `accuracy` in [0, 1].

    Raises:
      RunError: the count is 0.
    """
    sums = jax.device_get(metrics)
    count = int(sums["count"])
    if not count:
        raise RunError(
            "the number of examples is 0; expected at least 1; replace the corrupt images of the "
            "set, of which none could be read"
        )
    return {"loss": float(sums["loss"]) / count, "accuracy": int(sums["correct"]) / count}
