"""Windows that slide over an array: their positions, their reduction, and their extremes.

`pooling.py` is built on this.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence, Sized
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType
from jaxtyping import Array, Float, Int, Real

from jaxcnn.layers.cpu_convolution.lowering import MAX_BAND_CHANNELS
from jaxcnn.layers.padding import Padding, output_size, per_dimension, resolve_padding

# Largest number of windows that an element may belong to for the derivative of `_extremes`, which
# has a term for each.
MAX_WINDOWS = 9

# Largest number of elements of a window that `reduce_taps` combines one by one.
MAX_TAPS = 16


class WindowAxis(NamedTuple):
    """The windows along one spatial axis of the input."""

    axis: int
    window: int
    stride: int
    dilation: int
    pads: tuple[int, int]  # as far as windows reach: less than the padding, or more in ceil mode
    num_taps: np.ndarray  # [num_windows], taps of each window inside the input
    num_padded_taps: np.ndarray  # [num_windows], taps inside the input or the padding


def window_axes(
    inputs: Array,
    window_shape: int | Sequence[int],
    strides: int | Sequence[int] | None,
    padding: Padding,
    window_dilation: int | Sequence[int],
    ceil_mode: bool,
) -> list[WindowAxis]:
    """Check the arguments and return the windows along every spatial axis."""
    axes = spatial_axes(inputs, window_rank(window_shape))
    sizes = tuple(inputs.shape[axis] for axis in axes)
    window = per_dimension("window_shape", window_shape, len(axes))
    stride = window if strides is None else per_dimension("strides", strides, len(axes))
    dilation = per_dimension("window_dilation", window_dilation, len(axes))
    pads = resolve_padding(
        padding, window, strides=stride, kernel_dilation=dilation, input_size=sizes
    )
    counts = output_size(
        sizes, window, strides=stride, padding=pads, kernel_dilation=dilation, ceil_mode=ceil_mode
    )
    window_axes = []
    for axis, n, k, s, d, (low, high), m in zip(
        axes, sizes, window, stride, dilation, pads, counts, strict=True
    ):
        taps = (np.arange(m) * s - low)[:, None] + np.arange(k) * d  # [num_windows, window]
        num_taps = ((0 <= taps) & (taps < n)).sum(axis=1)
        if not num_taps.all():
            raise ValueError(
                f"window {num_taps.argmin()} along axis {axis} (size {n}) holds padding only, with "
                f"window {k}, stride {s}, dilation {d} and padding {(low, high)}; expected at "
                "least one pixel; pad by less than the window's extent, or use a smaller dilation"
            )
        reach = max(0, int(taps.max()) + 1 - n)
        num_padded_taps = (taps < n + high).sum(axis=1)
        window_axes.append(WindowAxis(axis, k, s, d, (low, reach), num_taps, num_padded_taps))
    return window_axes


def window_rank(shape: int | Sequence[int]) -> int | None:
    """Return the number of sizes in a tuple, or None for an int, which stands for all."""
    return len(shape) if isinstance(shape, Sized) else None


def spatial_axes(inputs: Array, num_dims: int | None) -> tuple[int, ...]:
    """Return the axes before the last one, `num_dims` of them; None is all except the first."""
    num_dims = inputs.ndim - 2 if num_dims is None else num_dims
    if not 1 <= num_dims < inputs.ndim:
        raise ValueError(
            f"inputs have shape {inputs.shape}, for {num_dims} spatial dimension(s) before the "
            "channels; expected at least one, and an axis for each; give a tuple with one int for "
            "each spatial dimension (a single int stands for all axes but the first and the last)"
        )
    return tuple(range(inputs.ndim - 1 - num_dims, inputs.ndim - 1))


def reduce_windows(
    padded: Any, reduce_fn: Callable[[Any, Any], Any], axes: Sequence[WindowAxis]
) -> Any:
    """Reduce each window of padded inputs by an associative function.

    Args:
      padded: array, or tree of arrays of one shape.
      reduce_fn: function of two such trees; the earlier elements are in the first argument.
      axes: the windows along each spatial axis.
    """
    # The last axis first, so that the elements of a window are combined in row-major order.
    for a in reversed(axes):
        padded = _slide(padded, reduce_fn, a.axis, a.window, a.stride, a.dilation)
    return padded


def _slide(
    x: Any,
    reduce_fn: Callable[[Any, Any], Any],
    axis: int,
    window: int,
    stride: int,
    dilation: int,
) -> Any:
    """Reduce every window along one axis.

    A window consists of its first half, its second half and, if odd, its last element. All windows
    share the array of halves, so a window of k elements takes about 2 log2(k) operations.
    """

    def cut(y: Any, start: int, stop: int | None) -> Any:
        return jax.tree.map(lambda leaf: lax.slice_in_dim(leaf, start, stop, stride, axis), y)

    if window == 1:
        return cut(x, 0, None)
    half = window // 2
    last = (window - 1) * dilation
    extent = jax.tree.leaves(x)[0].shape[axis] - last  # number of positions of a window

    halves = _slide(x, reduce_fn, axis, half, 1, dilation)
    second = half * dilation
    whole = reduce_fn(cut(halves, 0, extent), cut(halves, second, second + extent))
    return reduce_fn(whole, cut(x, last, last + extent)) if window % 2 else whole


def reduce_taps(
    padded: Any, reduce_fn: Callable[[Any, Any], Any], axes: Sequence[WindowAxis]
) -> Any:
    """Reduce each window as `reduce_windows` does.

    Windows of at most MAX_TAPS elements are reduced element by element, which is one kernel on a
    GPU: no array is written between two axes.
    """
    if math.prod(a.window for a in axes) > MAX_TAPS:
        return reduce_windows(padded, reduce_fn, axes)

    def cut(leaf: Array, offsets: Sequence[int]) -> Array:
        for a, offset in zip(axes, offsets, strict=True):
            start = offset * a.dilation
            stop = start + (len(a.num_taps) - 1) * a.stride + 1
            leaf = lax.slice_in_dim(leaf, start, stop, a.stride, a.axis)
        return leaf

    taps = [
        jax.tree.map(functools.partial(cut, offsets=offsets), padded)
        for offsets in itertools.product(*(range(a.window) for a in axes))
    ]
    return functools.reduce(reduce_fn, taps)


# Sums, whose gradient is that of the window


def sum_windows(
    padded: Float[Array, "*batch_and_space channels"], axes: Sequence[WindowAxis]
) -> Float[Array, "*batch_and_windows channels"]:
    """Sum the elements of each window.

    Args:
      padded: the padded inputs.
      axes: the windows along each spatial axis.
    """
    are_tiles = all(
        a.dilation == 1 and a.window * len(a.num_taps) == padded.shape[a.axis] for a in axes
    )
    return _sum_tiles(padded, axes) if are_tiles else _sums(padded, axes)


def _sums(padded: Array, axes: Any) -> Array:
    return reduce_windows(padded, jnp.add, axes)


# The transpose of the derivative below repeats the gradient of a window for each of its elements.
# That of `_sums` adds four padded arrays for windows of 2x2: on a CPU, LeNet-5's step of 64 images
# takes 1.04 times as long.
_sum_tiles = jax.custom_jvp(_sums, nondiff_argnums=(1,))


@_sum_tiles.defjvp
def _(axes: Any, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (padded,), (tangent,) = primals, tangents
    for a in reversed(axes):
        shape = tangent.shape
        split = len(a.num_taps), a.window
        tangent = tangent.reshape(*shape[: a.axis], *split, *shape[a.axis + 1 :])
    within = [a.axis + i + 1 for i, a in enumerate(axes)]
    return _sum_tiles(padded, axes), tangent.sum(within)


# Extremes, of which the element that was taken has the whole gradient


def take_extremes(
    padded: Real[Array, "*batch_and_space channels"],
    precedes: Callable[[Array, Array], Array],
    axes: Sequence[WindowAxis],
) -> Real[Array, "*batch_and_windows channels"]:
    """Take the element of each window that `precedes` all others.

    Args:
      padded: the padded inputs.
      precedes: whether each element of its first argument is taken rather than that of the second.
      axes: the windows along each spatial axis.
    """
    if (
        not jnp.issubdtype(padded.dtype, jnp.floating)
        # The derivative of `_extremes` would transpose images that are stored batch-minor.
        or padded.shape[-1] <= MAX_BAND_CHANNELS
        or _Blocks(axes).windows_of_element > MAX_WINDOWS
        # Its condition would slice an axis that may be sharded.
        or AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    ):
        return _slices(padded, precedes, axes)
    return _extremes(padded, precedes, axes)


def _slices(padded: Array, precedes: Callable[[Array, Array], Array], axes: Any) -> Array:
    return reduce_windows(padded, lambda a, b: jnp.where(precedes(a, b), a, b), axes)


# The derivative below names the element that each window took. Its transpose, which adds to each
# element the gradients of those windows, takes a third of the time of the transpose of `_slices` on
# a CPU.
_extremes = jax.custom_jvp(_slices, nondiff_argnums=(1, 2))


@_extremes.defjvp
def _(
    precedes: Callable[[Array, Array], Array],
    axes: Sequence[WindowAxis],
    primals: tuple[Array],
    tangents: tuple[Array],
) -> tuple[Array, Array]:
    (padded,), (tangent,) = primals, tangents
    blocks = _Blocks(axes)

    def argextremes(reduce: Callable[..., Any], padded: Array) -> tuple[Array, Array]:
        def take(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
            first = precedes(a[0], b[0])
            return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

        positions = jnp.broadcast_to(blocks.positions(padded.shape), padded.shape)
        return reduce((padded, positions), take, axes)

    outputs, taken = lax.platform_dependent(
        padded,
        cpu=functools.partial(_apart, functools.partial(argextremes, reduce_windows)),
        cuda=functools.partial(argextremes, reduce_taps),
        default=functools.partial(argextremes, reduce_windows),
    )
    return outputs, blocks.take(tangent, taken)


def _apart(fun: Callable[[Array], Any], x: Array) -> Any:
    """Return `fun(x)`, computed before the operations that read it.

    XLA computes a chain of elementwise operations and slices again for each operation that reads
    it, here once for each window that an element may belong to. It leaves a conditional whole. The
    condition holds for every number and for NaN, but XLA does not know that.
    """
    if x.size == 0:
        return fun(x)
    first = x[(0,) * x.ndim]
    is_true = (first == first) | (first != first)
    return lax.cond(is_true, fun, lambda x: jax.tree.map(jnp.zeros_like, fun(x)), x)


class _Blocks:
    """The padded inputs in blocks of the strides: element i s + p is element p of block i.

    Window i consists of elements of block i and of the `overlap` blocks after it.
    """

    def __init__(self, axes: Sequence[WindowAxis]) -> None:
        self._axes = axes
        self._overlaps = [(a.window - 1) * a.dilation // a.stride for a in axes]
        self._counts = [len(a.num_taps) + n for a, n in zip(axes, self._overlaps, strict=True)]
        self._sizes = [n * a.stride for n, a in zip(self._counts, axes, strict=True)]

    @property
    def windows_of_element(self) -> int:
        """Return the largest number of windows that an element may belong to."""
        return math.prod(n + 1 for n in self._overlaps)

    def positions(self, shape: tuple[int, ...]) -> Int[Array, "*ones_and_space 1"]:
        """Return a number of each element of a window, that no other element of a window has."""
        # Two bytes where they suffice: AlexNet-2012's step needs 61 MiB less than with four.
        dtype = jnp.int16 if math.prod(self._sizes) < 2**15 else jnp.int32
        total = jnp.zeros((1,) * len(shape), dtype)
        for a, size in zip(self._axes, self._sizes, strict=True):
            ones = [1] * len(shape)
            ones[a.axis] = shape[a.axis]
            total = size * total + lax.broadcasted_iota(dtype, ones, a.axis)
        return total

    def take(
        self,
        padded: Float[Array, "*batch_and_space channels"],
        taken: Int[Array, "*batch_and_windows channels"],
    ) -> Float[Array, "*batch_and_windows channels"]:
        """Return the element of each window at the position `taken`."""
        pads = [(0, 0, 0)] * padded.ndim
        for a, size in zip(self._axes, self._sizes, strict=True):
            pads[a.axis] = 0, size - padded.shape[a.axis], 0
        padded = lax.pad(padded, jnp.zeros((), padded.dtype), pads)
        elements, positions = self._split(padded), self._split(self.positions(padded.shape))
        within = tuple(2 * a.axis + 1 - self._axes[0].axis for a in self._axes)
        terms = []
        for offsets in itertools.product(*(range(n + 1) for n in self._overlaps)):
            # The windows that could have taken an element of each block, by that block's number.
            pads, starts = [(0, 0, 0)] * taken.ndim, [0] * taken.ndim
            for a, offset, overlap in zip(self._axes, offsets, self._overlaps, strict=True):
                pads[a.axis], starts[a.axis] = (offset, overlap - offset, 0), offset
            by_block = lax.pad(taken, jnp.array(-1, taken.dtype), pads)
            is_taken = jnp.expand_dims(by_block, within) == positions
            sums = jnp.where(is_taken, elements, 0).sum(within)
            stops = [start + n for start, n in zip(starts, taken.shape, strict=True)]
            terms.append(lax.slice(sums, starts, stops))
        return functools.reduce(jnp.add, terms)

    def _split(self, x: Array) -> Array:
        """Return [*batch, blocks, stride, blocks, stride, ..., channels]."""
        batch = x.shape[: self._axes[0].axis]
        blocks = [
            size for a, n in zip(self._axes, self._counts, strict=True) for size in (n, a.stride)
        ]
        return x.reshape(*batch, *blocks, x.shape[-1])
