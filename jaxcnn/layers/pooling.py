"""Pooling over channels-last arrays: `pool`, the one general function, and its specialisations.

Inputs have any number of batch dimensions, the spatial ones, and the channels:
`[*batch, *space, channels]`. The length of a `window_shape` tuple is the number of spatial
dimensions, so images are pooled one by one (`[height, width, channels]`) or in batches of any rank.
A single int stands for all dimensions except the first, the batch, and the last. For an image
without a batch dimension, write `(2, 2)`.

Every function here is differentiable as often as its arithmetic is, forward and backward; its
docstring defines the result for NaN and ties. Strides default to the window, as in PyTorch and
Keras; in `flax.linen` they default to 1. `padding` has any form that `resolve_padding` accepts. A
window that holds padding only is an error, where XLA and linen return the identity of the
reduction.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from jaxcnn.layers.padding import Padding, pad, per_dimension
from jaxcnn.layers.windows import (
    reduce_windows,
    spatial_axes,
    sum_windows,
    take_extremes,
    window_axes,
    window_rank,
)


def pool(
    inputs: Real[Array, "*batch_and_space channels"],
    init: ArrayLike,
    reduce_fn: Callable[[Array, Array], Array],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    window_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "*batch_and_windows channels"]:
    """Reduce each window of the input to one value, channel by channel.

    y[i] = x[i s - low] + x[i s - low + d] + ... + x[i s - low + (k - 1) d], where + is `reduce_fn`
    and x is `init` outside the input; with k the window, s the stride and d the dilation, along
    each spatial dimension, the last one first.

    The result consists of `reduce_fn` on strided slices, so it has derivatives of any order;
    `lax.reduce_window` has none for most reductions, and XLA's derivative of the maximum is several
    times slower on a CPU.

    Args:
      inputs: the array to pool.
      init: padded value, in the dtype of `inputs`: the identity of `reduce_fn`.
      reduce_fn: associative, elementwise function of two arrays of one shape. The elements of a
        window are combined in order, the earlier ones in the first argument.
      window_shape: an int of at least 1 for each spatial dimension, or one for all (see above).
      strides: the distance between windows; None is the size of the window.
      padding: see `resolve_padding`.
      window_dilation: the distance between neighbours within a window.
      ceil_mode: whether a last window may reach beyond the padded input, see `output_size`.

    Returns:
      `[*batch, *output_size, channels]`, in the dtype that `reduce_fn` returns.

    Raises:
      ValueError: if the arguments do not fit the number of dimensions or each other, if no window
        fits into the input, or if some window holds padding only.
    """
    axes = window_axes(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    return reduce_windows(pad(inputs, [a.pads for a in axes], value=init), reduce_fn, axes)


def max_pool(
    inputs: Real[Array, "*batch_and_space channels"],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "*batch_and_windows channels"]:
    """Take the maximum of each window; arguments, shapes and errors are those of `pool`.

    Padding is never the maximum. A window with a NaN yields NaN. Only the element that was taken
    has a gradient: of equal elements the first in row-major order, of several NaN the first. If the
    maximum is -inf, padding may take the gradient, which is then dropped. The second derivative is
    zero. Integer types are kept.

    `strides` differs from linen's, whose default is 1. PyTorch and XLA resolve ties in the same
    way, whereas `jnp.max` divides the gradient among equal elements.
    """
    inputs = jnp.asarray(inputs)
    lowest, _ = _limits(inputs)
    axes = window_axes(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    padded = pad(inputs, [a.pads for a in axes], value=lowest)
    return take_extremes(padded, lambda a, b: (a >= b) | jnp.isnan(a), axes)


def min_pool(
    inputs: Real[Array, "*batch_and_space channels"],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Real[Array, "*batch_and_windows channels"]:
    """Take the minimum of each window; otherwise as `max_pool`, with +inf instead of -inf.

    min_pool(x) = -max_pool(-x) for floating-point x, gradients included. PyTorch and Keras have no
    such layer.
    """
    inputs = jnp.asarray(inputs)
    _, highest = _limits(inputs)
    axes = window_axes(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    padded = pad(inputs, [a.pads for a in axes], value=highest)
    return take_extremes(padded, lambda a, b: (a <= b) | jnp.isnan(a), axes)


def avg_pool(
    inputs: Float[Array, "*batch_and_space channels"],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    *,
    window_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "*batch_and_windows channels"]:
    """Take the mean of each window; arguments, shapes and errors are those of `pool`.

    y = sum / count. Padding adds 0 to the sum, and is counted if `count_include_pad`. Positions
    beyond the padding, which `ceil_mode` can reach, are never counted (PyTorch's rule). Sums of
    float16 and bfloat16 are held in float32. A window with a NaN yields NaN.

    `strides` differs from linen's, whose default is 1. `count_include_pad` is True as in linen and
    PyTorch; TensorFlow and Keras never count padding.

    Raises:
      ValueError: as `pool`, and for integer inputs: cast them to a float type first.
    """
    inputs = jnp.asarray(inputs)
    axes = window_axes(inputs, window_shape, strides, padding, window_dilation, ceil_mode)
    sums = sum_windows(pad(_accumulator(inputs), [a.pads for a in axes]), axes)
    counts = functools.reduce(
        np.multiply.outer, [a.num_padded_taps if count_include_pad else a.num_taps for a in axes]
    )
    counts = counts.reshape((1,) * axes[0].axis + counts.shape + (1,))
    return (sums / jnp.asarray(counts, sums.dtype)).astype(inputs.dtype)


def lp_pool(
    inputs: Float[Array, "*batch_and_space channels"],
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    p: float = 2.0,
    window_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Float[Array, "*batch_and_windows channels"]:
    """Take the p-norm of each window; the other arguments, shapes and errors are those of `pool`.

    y = (sum |x|^p)^(1/p), in float32 for float16 and bfloat16; |x|^p must be finite in float32. A
    window with a NaN yields NaN. Where the norm is not differentiable, the gradient is a
    subgradient: 0 for a window of zeros, and at p = 1 an element 0 counts as positive.

    `strides` defaults to the window as in PyTorch. PyTorch omits the absolute value, so that odd p
    can yield NaN, and scales up windows that `ceil_mode` cuts short. Linen has no such layer.

    Raises:
      ValueError: as `pool`, unless 1 <= p < infinity (use `max_pool` of |x| there), and for integer
        inputs: cast them to a float type first.
    """
    if not 1 <= p < math.inf:
        raise ValueError(
            f"p is {p}; expected 1 <= p < infinity; for infinity, use max_pool(jnp.abs(inputs))"
        )
    inputs = jnp.asarray(inputs)
    powers = jnp.abs(_accumulator(inputs)) ** p
    sums = pool(powers, 0, jnp.add, window_shape, strides, padding, window_dilation, ceil_mode)
    # The inner `where` keeps the root's infinite slope at 0 out of the gradient.
    roots = jnp.where(sums == 0, 1, sums) ** (1 / p)
    return jnp.where(sums == 0, 0, roots).astype(inputs.dtype)


def global_max_pool(
    inputs: Real[Array, "*batch_and_space channels"], num_spatial_dims: int | None = None
) -> Real[Array, "*batch channels"]:
    """Take the maximum over all positions, as `max_pool` with a window of that size.

    Args:
      inputs: the array to pool.
      num_spatial_dims: number of dimensions before the channels to pool over; None is all except
        the first, which is then the batch.

    Raises:
      ValueError: if `inputs` has too few dimensions, or one of them is of size 0.
    """
    return _global_pool(max_pool, inputs, num_spatial_dims)


def global_min_pool(
    inputs: Real[Array, "*batch_and_space channels"], num_spatial_dims: int | None = None
) -> Real[Array, "*batch channels"]:
    """Take the minimum over all positions; otherwise as `global_max_pool`."""
    return _global_pool(min_pool, inputs, num_spatial_dims)


def global_avg_pool(
    inputs: Float[Array, "*batch_and_space channels"], num_spatial_dims: int | None = None
) -> Float[Array, "*batch channels"]:
    """Take the mean over all positions, as `avg_pool`; otherwise as `global_max_pool`."""
    return _global_pool(avg_pool, inputs, num_spatial_dims)


def adaptive_max_pool(
    inputs: Real[Array, "*batch_and_space channels"], output_shape: int | Sequence[int]
) -> Real[Array, "*batch_and_bins channels"]:
    """Take the maximum of each of `output_shape` bins, whatever the size of the input.

    Along each dimension of size n, bin i of m covers floor(i n / m) <= x < ceil((i + 1) n / m)
    (PyTorch's rule): all equal where m divides n, else overlapping; m may exceed n. NaN, ties and
    types are as in `max_pool`.

    Args:
      inputs: the array to pool.
      output_shape: the number of bins along each spatial dimension; an int holds for all dimensions
        except the first, the batch, and the last.

    Raises:
      ValueError: if `output_shape` does not fit `inputs`, or holds an int below 1.
    """
    return _adaptive_pool(max_pool, inputs, output_shape)


def adaptive_avg_pool(
    inputs: Float[Array, "*batch_and_space channels"], output_shape: int | Sequence[int]
) -> Float[Array, "*batch_and_bins channels"]:
    """Take the mean of each of `output_shape` bins; the bins are those of `adaptive_max_pool`.

    Sums of float16 and bfloat16 are held in float32.

    Raises:
      ValueError: as `adaptive_max_pool`, and for integer inputs: cast them to a float type first.
    """
    inputs = jnp.asarray(inputs)
    return _adaptive_pool(avg_pool, _accumulator(inputs), output_shape).astype(inputs.dtype)


def _global_pool(
    pool_fn: Callable[..., Array], inputs: Array, num_spatial_dims: int | None
) -> Array:
    axes = spatial_axes(inputs, num_spatial_dims)
    return jnp.squeeze(pool_fn(inputs, tuple(inputs.shape[axis] for axis in axes)), axes)


def _adaptive_pool(
    pool_fn: Callable[..., Array], inputs: Array, output_shape: int | Sequence[int]
) -> Array:
    axes = spatial_axes(inputs, window_rank(output_shape))
    bins = per_dimension("output_shape", output_shape, len(axes))
    outputs = inputs
    # A bin is a box, so its mean or maximum is computed axis by axis; the last first, as in `pool`.
    for axis, m in reversed(list(zip(axes, bins, strict=True))):
        n = inputs.shape[axis]
        pooled = []
        for i in range(m):
            start, stop = i * n // m, -(-(i + 1) * n // m)
            window = [stop - start if a == axis else 1 for a in axes]
            pooled.append(pool_fn(lax.slice_in_dim(outputs, start, stop, axis=axis), window))
        outputs = jnp.concatenate(pooled, axis)
    return outputs


def _limits(inputs: Array) -> tuple[float, float]:
    """Return the least and the greatest value of the inputs' type, infinities included."""
    if jnp.issubdtype(inputs.dtype, jnp.floating):
        return -math.inf, math.inf
    if jnp.issubdtype(inputs.dtype, jnp.integer):
        return jnp.iinfo(inputs.dtype).min, jnp.iinfo(inputs.dtype).max
    raise ValueError(f"inputs are {inputs.dtype}; expected a float or an integer type; cast them")


def _accumulator(inputs: Array) -> Array:
    """Cast to the type that sums are held in: at least float32."""
    if not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"inputs are {inputs.dtype}; expected a float type, because a mean or a norm is not an "
            "integer; cast them, as in inputs.astype(jnp.float32)"
        )
    return inputs.astype(sum_dtype(inputs.dtype))


def sum_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the type to hold sums of a float type in: float32 for float16 and bfloat16."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)
