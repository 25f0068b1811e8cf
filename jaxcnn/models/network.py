"""The interface between a network and the engine, with the parts that are optional."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec


class Network(Protocol):
    """A linen module that can be trained, evaluated and summarized.

    A call is `model(images, train=...)` with normalized images [batch, height, width, channels]. It
    returns an array [batch, classes] whose largest entry is the predicted class: logits, unless the
    network defines `loss_fn`. With `train=True` the network may draw from the "dropout" key. Its
    layers are named submodules, one after the other.

    Optional attributes and methods:

    - `dtype`: type of the computation, for `--dtype`; parameters stay float32.
    - `loss_fn(outputs, labels) -> [batch]`: loss that replaces cross-entropy. Minus this loss is
      the log-probability of the label.
    - `code(images) -> [batch, units]`: outputs whose squared distance from a target is the loss,
      for `--optimizer.name diagonal-lm`.
    - `model_axis`: dict from a parameter such as "fc6/kernel" to its `PartitionSpec`, by which
      `--model-axis` splits it over devices.
    - `head`: name of the layer with an output for each class, which starts from random values where
      `--init-from` names a network for other classes.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return the outputs of a batch."""
        ...


def has_dtype(model: nn.Module) -> bool:
    """Return whether the network has an attribute `dtype`."""
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
    """Return the `PartitionSpec` of each parameter that is split over the mesh axis `model`."""
    return getattr(model, "model_axis", {})


def head(model: nn.Module) -> str | None:
    """Return the name of the layer with an output for each class, or None if there is none."""
    return getattr(model, "head", None)
