"""The sizes of networks that the study of costs compares; each is computed from the network."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:  # late in the functions, because listing the studies needs no jax
    from flax import linen as nn

    from jaxcnn.layers.padding import Window
    from jaxcnn.summary.summarize import Layer, Summary

CONVOLUTIONS = ("C1", "C3", "C5")
PADDINGS = ("VALID", "SAME", "FULL")
SIDE = 28  # pixels of MNIST


@functools.cache
def summary_of(model: str) -> Summary:
    """Return the layers of an entry of MODELS."""
    from jaxcnn.models import IMAGE_SHAPES, MODELS
    from jaxcnn.summary.summarize import summarize

    return summarize(MODELS[model](), IMAGE_SHAPES[model])


@functools.cache
def without_pooling() -> Summary:
    """Return the layers of LeNet-5 whose pools return their input."""
    from jaxcnn.models.lenet import LeNet5
    from jaxcnn.summary.summarize import summarize

    return summarize(LeNet5(pool=lambda inputs, window_shape: inputs), (SIDE, SIDE, 1))


def layer_of(summary: Summary, name: str) -> Layer:
    """Return a layer by its name."""
    return next(layer for layer in summary.layers if layer.name == name)


def convolution_parameters(summary: Summary) -> int:
    """Return the number of parameters of the convolutions."""
    return sum(layer_of(summary, name).parameters for name in CONVOLUTIONS)


def activations(summary: Summary) -> int:
    """Return the number of outputs of all layers, for one image."""
    return sum(layer.units for layer in summary.layers)


@functools.cache
def unshared_parameters(name: str) -> int:
    """Return the parameters of a convolution of LeNet-5 if each output has a kernel of its own."""
    from flax import linen as nn

    summary = summary_of("lenet5")
    names = [layer.name for layer in summary.layers]
    layer, before = layer_of(summary, name), names.index(name) - 1
    source = summary.layers[before].output_shape if before >= 0 else summary.input_shape
    assert layer.window is not None
    padding = "SAME" if source[:2] == layer.output_shape[:2] else "VALID"
    return num_parameters(
        nn.ConvLocal(layer.output_shape[-1], layer.window, padding=padding), source
    )


def num_parameters(module: nn.Module, image_shape: Sequence[int]) -> int:
    """Return the number of parameters of a module."""
    import jax
    import jax.numpy as jnp

    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image)["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def first_stages(padding: str) -> tuple[Window, ...]:
    """Return LeNet-5's first four layers along an axis, with another padding of C1 and C3."""
    from jaxcnn.layers.padding import Window

    conv, pool = Window(5, padding=padding), Window(2, strides=2)
    return conv, pool, conv, pool


def sizes(windows: Sequence[Window], size: int = SIDE) -> list[int]:
    """Return the size of the maps after each of a stack of layers."""
    from jaxcnn.layers.padding import output_size

    result = []
    for window in windows:
        (size,) = output_size(
            (size,), window.kernel_size, strides=window.strides, padding=window.padding
        )
        result.append(size)
    return result


def outputs_entered(windows: Sequence[Window], size: int = SIDE) -> Int[np.ndarray, " positions"]:
    """Return the number of outputs of a stack of layers that each position along an axis enters.

    Args:
      windows: layers, the first one first.
      size: number of positions.
    """
    from jaxcnn.layers.padding import per_dimension, resolve_padding
    from jaxcnn.summary.dependence import identity

    (interval,) = identity((size,))
    before = size
    for window, after in zip(windows, sizes(windows, size), strict=True):
        (kernel,) = per_dimension("kernel_size", window.kernel_size, 1)
        (stride,) = per_dimension("strides", window.strides, 1)
        ((low, _),) = resolve_padding(window.padding, kernel, strides=stride, input_size=(before,))
        taps = (np.arange(after) * stride - low)[:, None] + np.arange(kernel)
        interval = interval.gather(0, np.where((taps >= 0) & (taps < before), taps, -1))
        before = after
    positions = np.arange(size)[:, None]
    return ((interval.first <= positions) & (positions <= interval.last)).sum(1)
