"""What the engine asks of a network: the one place that knows which parts are optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec


class Network(Protocol):
    """A linen module that can be trained, evaluated and summarized.

    It must be called as `model(images, train=...)`, on normalized images [batch, height, width,
    channels], and return an array [batch, classes], the largest for its answer: logits, unless it
    has a loss of its own. With `train=True` it may draw from the "dropout" key. Its layers are
    submodules with names, one after the other.

    It may have, besides:

    - `dtype`: the type of its computation, for `--dtype`; parameters stay float32.
    - `loss_fn(outputs, labels) -> [batch]`: a loss that replaces cross-entropy. Minus this loss is
      the log-probability of the label.
    - `code(images) -> [batch, units]`: the outputs whose squared distance from a target is the
      loss, for `--optimizer.name diagonal-lm`.
    - `model_axis`: parameter, as "fc6/kernel" -> how `--model-axis` splits it over devices.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return the outputs of a batch."""
        ...


def has_dtype(model: nn.Module) -> bool:
    """Return whether the type of the network's computation can be chosen."""
    return hasattr(model, "dtype")


def loss_fn(model: nn.Module) -> Callable[[jax.Array, jax.Array], jax.Array] | None:
    """Return the network's own loss, or None if it is cross-entropy."""
    return getattr(model, "loss_fn", None)


def code_fn(model: nn.Module) -> Callable[[Any, jax.Array], Any] | None:
    """Return `(params, images) -> code`, or None if the network has no code."""
    if not hasattr(model, "code"):
        return None

    def code(params: Any, images: jax.Array) -> Any:
        return model.apply({"params": params}, images, method="code")

    return code


def model_axis(model: nn.Module) -> Mapping[str, PartitionSpec]:
    """Return how each parameter that can be split lies over the mesh axis `model`."""
    return getattr(model, "model_axis", {})
