"""Subsampling for comparison with pooling by windows: no window, a larger one, or a blur.

Each function takes images and the factors of the subsampling, as the pools of `LeNet5` do, and
returns maps of the same size as `max_pool` with these windows.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Real

from jaxcnn.layers.pooling import avg_pool, max_pool


def subsample(
    inputs: Real[Array, "*batch height width channels"], factors: Sequence[int]
) -> Real[Array, "*batch rows columns channels"]:
    """Keep the first unit of each window and ignore the others.

    After a convolution, this is the convolution with the factors as its stride.

    Args:
      inputs: maps.
      factors: vertical and horizontal factor.
    """
    return max_pool(inputs, (1, 1), strides=factors)


def overlapping_max_pool(
    inputs: Real[Array, "*batch height width channels"], factors: Sequence[int]
) -> Real[Array, "*batch rows columns channels"]:
    """Take the maximum of windows that are larger than their distance by one.

    Windows of the last row and column may reach beyond the maps, so that the result has the size
    that windows without overlap give.

    Args:
      inputs: maps.
      factors: vertical and horizontal distance of the windows.

    References:
      Krizhevsky, Sutskever, Hinton 2012, section 3.4, which compares windows of 3x3 and 2x2.
    """
    window = [factor + 1 for factor in factors]
    return max_pool(inputs, window, strides=factors, ceil_mode=True)


def overlapping_avg_pool(
    inputs: Float[Array, "*batch height width channels"], factors: Sequence[int]
) -> Float[Array, "*batch rows columns channels"]:
    """Take the mean of the windows of `overlapping_max_pool`, of their units inside the maps."""
    window = [factor + 1 for factor in factors]
    return avg_pool(inputs, window, strides=factors, ceil_mode=True)


def max_blur_pool(
    inputs: Float[Array, "*batch height width channels"], factors: Sequence[int]
) -> Float[Array, "*batch rows columns channels"]:
    """Take the maximum of every window, blur the maxima with (1, 2, 1) / 4 and subsample them.

    The maxima are reflected at the border. Without subsampling, a shift of the input shifts the
    maxima; the blur reduces what subsampling loses of that.

    Args:
      inputs: maps, of even height and width.
      factors: vertical and horizontal factor.

    References:
      Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019, section 3.2.
    """
    x = max_pool(inputs, factors, strides=1)
    for axis, factor in zip((x.ndim - 3, x.ndim - 2), factors, strict=True):
        pads = [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)]
        x = jnp.pad(x, pads, mode="reflect")
        left, center, right = (
            lax.slice_in_dim(x, start, x.shape[axis] - 2 + start, factor, axis)
            for start in range(3)
        )
        x = (left + 2 * center + right) / 4
    return x
