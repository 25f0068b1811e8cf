"""Padding as arithmetic: explicit pads, output sizes and receptive fields.

A window of `kernel_size` k with `kernel_dilation` d spans d (k - 1) + 1 pixels. Sizes, kernels,
strides and dilations are integers of at least 1; explicit pads are `(low, high)` pairs of at least
0, one per spatial dimension. `input_size` is always a tuple, and its length is the number of
spatial dimensions. Any other argument may be a single int, which then holds for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Shaped

Padding: TypeAlias = str | int | Sequence[int | tuple[int, int]]
Pads: TypeAlias = tuple[tuple[int, int], ...]

_NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "circular": "wrap"}


class Window(NamedTuple):
    """A layer for `receptive_field`: a convolution without its weights, or a pooling."""

    kernel_size: int | Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = "VALID"
    kernel_dilation: int | Sequence[int] = 1


class ReceptiveField(NamedTuple):
    """Receptive field: output i depends on the `size` pixels from `start + i * strides` on.

    Each attribute is a tuple with one entry for each spatial dimension.

    Attributes:
      size: extent of the field in input pixels.
      strides: distance in input pixels between the fields of two neighbouring outputs.
      start: index of the first pixel in the field of output 0; negative inside the padding.
    """

    size: tuple[int, ...]
    strides: tuple[int, ...]
    start: tuple[int, ...]


def per_dimension(name: str, value: int | Sequence[int], num_dims: int) -> tuple[int, ...]:
    """Return `value` as a tuple with one int for each spatial dimension; repeat a single int.

    Args:
      name: name of the argument, for the error.
      value: integers of at least 1.
      num_dims: number of spatial dimensions.

    Raises:
      ValueError: if `value` is not `num_dims` integers of at least 1.
    """
    values = tuple(value) if isinstance(value, Iterable) else (value,) * num_dims
    if len(values) != num_dims or not all(
        isinstance(v, int | np.integer) and v >= 1 for v in values
    ):
        raise ValueError(
            f"{name} is {value!r}; expected an integer of at least 1, or a tuple of {num_dims} of "
            "them, one for each spatial dimension"
        )
    return tuple(int(v) for v in values)


def resolve_padding(
    padding: Padding,
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    input_size: Sequence[int],
) -> Pads:
    """Turn every way of writing padding into explicit `(low, high)` pairs.

    With input size n, stride s and a window that spans e pixels:

    - `"VALID"`: none.
    - `"SAME"`: the least that gives ceil(n / s) outputs; an odd pixel is added at the high end.
    - `"SAME_LOWER"`: the same, with the odd pixel at the low end.
    - `"FULL"`: e - 1 at both ends, so that at stride 1 every pixel is multiplied by every tap of
      the kernel.
    - `"CAUSAL"`: e - 1 at the low end, so that at stride 1 output i does not depend on pixels after
      i; for one spatial dimension only, as in `flax.linen.Conv`.
    - an int: that much at both ends of every dimension.
    - a sequence with one entry per dimension: an int for both ends, or a `(low, high)` pair. As in
      `flax.linen.Conv`, `(1, 2)` pads the height by 1 and the width by 2; low 1 and high 2 of a
      single dimension is `((1, 2),)`.

    Strings may be upper or lower case, as in `jax.lax`.

    Returns:
      One `(low, high)` pair for each spatial dimension.

    Raises:
      ValueError: for an unknown string, `"CAUSAL"` with several dimensions, a sequence of the wrong
        length, a negative pad (slice the input instead), or a size, kernel, stride or dilation
        below 1.
    """
    size, kernel, stride, dilation = _geometry(input_size, kernel_size, strides, kernel_dilation)
    span = _spans(kernel, dilation)
    if not isinstance(padding, str):
        return _explicit_pads(padding, len(size))
    match padding.upper():
        case "VALID":
            return ((0, 0),) * len(size)
        case "FULL":
            return tuple((e - 1, e - 1) for e in span)
        case "CAUSAL" if len(size) == 1:
            return ((span[0] - 1, 0),)
        case "SAME" | "SAME_LOWER" as name:
            same_size = tuple(-(-n // s) for n, s in zip(size, stride, strict=True))
            pads = padding_for_output_size(
                same_size, size, kernel, strides=stride, kernel_dilation=dilation
            )
            return pads if name == "SAME" else tuple((high, low) for low, high in pads)
    raise ValueError(
        f"padding is {padding!r} for {len(size)} spatial dimension(s); expected 'VALID', 'SAME', "
        "'SAME_LOWER', 'FULL', 'CAUSAL' (one spatial dimension only), an int, or a sequence of "
        "ints or (low, high) pairs"
    )


def output_size(
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Count the windows that fit into the padded input along each spatial dimension.

    floor((low + n + high - e) / s) + 1, with input size n, stride s and a window that spans e
    pixels. With `ceil_mode` the floor becomes a ceil, so that a last window may reach beyond the
    padding, but only windows that start inside the low padding or the input count (PyTorch's rule).

    Raises:
      ValueError: as `resolve_padding`, and if no window fits (lax returns size 0 there).
    """
    size, kernel, stride, dilation = _geometry(input_size, kernel_size, strides, kernel_dilation)
    pads = resolve_padding(
        padding, kernel, strides=stride, kernel_dilation=dilation, input_size=size
    )
    outputs = []
    for n, e, s, (low, high) in zip(size, _spans(kernel, dilation), stride, pads, strict=True):
        room = low + n + high - e
        count = room // s + 1
        if ceil_mode:
            count = min(-(-room // s) + 1, -(-(low + n) // s))
        if count < 1:
            raise ValueError(
                f"the window spans {e} pixels; expected at most {low + n + high}, the {n} pixels "
                f"of the input padded by {(low, high)}; pad more, or use a smaller window or "
                "dilation"
            )
        outputs.append(count)
    return tuple(outputs)


def padding_for_output_size(
    output_size: int | Sequence[int],
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
) -> Pads:
    """Return the least padding that gives `output_size`: the inverse of the function of that name.

    max(0, (m - 1) s + e - n) pixels in all, with output size m, input size n, stride s and a window
    that spans e pixels. They are split evenly; an odd one is added at the high end, as in `"SAME"`.

    Raises:
      ValueError: if even without padding there are more outputs than `output_size`, or if an
        argument is below 1.
    """
    size, kernel, stride, dilation = _geometry(input_size, kernel_size, strides, kernel_dilation)
    outputs = per_dimension("output_size", output_size, len(size))
    pads = []
    for m, n, e, s in zip(outputs, size, _spans(kernel, dilation), stride, strict=True):
        # Any total from `least` to `least + s - 1` gives m outputs, for the last stride may be cut.
        least = (m - 1) * s + e - n
        if least + s - 1 < 0:
            raise ValueError(
                f"output_size is {m} for {n} pixels; expected at least {(n - e) // s + 1}, which a "
                f"window that spans {e} pixels at stride {s} gives without padding; use that, or "
                "crop the input"
            )
        total = max(least, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def receptive_field(layers: Sequence[Window], input_size: Sequence[int]) -> ReceptiveField:
    """Return the receptive field of the last of a stack of layers, the first layer first.

    Layer by layer, with jump j between neighbouring fields (1 at first): size grows by
    j d (k - 1), start falls by j low, and j is multiplied by the stride. The input's size matters
    only through padding that depends on it, such as `"SAME"` with strides.

    Raises:
      ValueError: as `output_size`, for the first layer that does not fit.

    References:
      Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks",
      Distill, 2019. Their effective padding is -`start`.
    """
    size = tuple(input_size)
    field, jump, start = (1,) * len(size), (1,) * len(size), (0,) * len(size)
    for layer in layers:
        _, kernel, stride, dilation = _geometry(
            size, layer.kernel_size, layer.strides, layer.kernel_dilation
        )
        pads = resolve_padding(
            layer.padding, kernel, strides=stride, kernel_dilation=dilation, input_size=size
        )
        size = output_size(size, kernel, strides=stride, padding=pads, kernel_dilation=dilation)
        span = _spans(kernel, dilation)
        field = tuple(f + j * (e - 1) for f, j, e in zip(field, jump, span, strict=True))
        start = tuple(p - j * low for p, j, (low, _) in zip(start, jump, pads, strict=True))
        jump = tuple(j * s for j, s in zip(jump, stride, strict=True))
    return ReceptiveField(field, jump, start)


def pad(
    x: Shaped[Array, "*batch_and_space channels"],
    padding: Sequence[int | tuple[int, int]],
    *,
    mode: Literal["constant", "reflect", "edge", "circular"] = "constant",
    value: ArrayLike = 0,
) -> Shaped[Array, "*batch_and_padded_space channels"]:
    """Pad the spatial dimensions of an array whose last dimension is the channels.

    [1, 2, 3] padded by 2 becomes [v, v, 1, 2, 3, v, v] (constant, v is `value`),
    [3, 2, 1, 2, 3, 2, 1] (reflect), [1, 1, 1, 2, 3, 3, 3] (edge) or [2, 3, 1, 2, 3, 1, 2]
    (circular). Padding wider than the image repeats the pattern, as in NumPy; in PyTorch it is an
    error.

    Args:
      x: array with any number of batch dimensions, the spatial ones, and the channels.
      padding: an int for both ends or a `(low, high)` pair for each spatial dimension; its length
        is the number of spatial dimensions.
      mode: rule for the padded values; "circular" is NumPy's "wrap".
      value: padded value in mode "constant", cast to the dtype of `x`.

    Raises:
      ValueError: if `padding` is a string, an int, empty, negative or has more entries than `x` has
        dimensions before the channels; if `mode` is unknown; if a dimension of size 0 is padded in
        a mode other than "constant".
    """
    if isinstance(padding, str) or not _has_entries(padding) or len(padding) >= x.ndim:
        raise ValueError(
            f"padding is {padding!r} for an array of shape {x.shape}; expected an int or a "
            "(low, high) pair for each spatial dimension, as in ((1, 1), (2, 2))"
        )
    if mode not in _NUMPY_MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(_NUMPY_MODES)}")
    x = jnp.asarray(x)
    num_batch_dims = x.ndim - len(padding) - 1
    pads = ((0, 0),) * num_batch_dims + _explicit_pads(padding, len(padding)) + ((0, 0),)
    if mode == "constant":
        return jnp.pad(x, pads, constant_values=jnp.asarray(value, x.dtype))
    return jnp.pad(x, pads, mode=_NUMPY_MODES[mode])


def _has_entries(value: object) -> bool:
    return isinstance(value, Sized) and len(value) > 0


def _geometry(
    input_size: Sequence[int],
    kernel_size: int | Sequence[int],
    strides: int | Sequence[int],
    kernel_dilation: int | Sequence[int],
) -> tuple[tuple[int, ...], ...]:
    """Return the arguments as checked tuples with one entry for each spatial dimension."""
    if not _has_entries(input_size):
        raise ValueError(
            f"input_size is {input_size!r}; expected a tuple, one size for each spatial dimension"
        )
    num_dims = len(input_size)
    return (
        per_dimension("input_size", input_size, num_dims),
        per_dimension("kernel_size", kernel_size, num_dims),
        per_dimension("strides", strides, num_dims),
        per_dimension("kernel_dilation", kernel_dilation, num_dims),
    )


def _spans(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))


def _explicit_pads(padding: int | Sequence[int | tuple[int, int]], num_dims: int) -> Pads:
    entries = tuple(padding) if isinstance(padding, Iterable) else (padding,) * num_dims
    pairs = [tuple(p) if isinstance(p, Iterable) else (p, p) for p in entries]
    if len(pairs) != num_dims or not all(
        len(pair) == 2 and all(isinstance(p, int | np.integer) and p >= 0 for p in pair)
        for pair in pairs
    ):
        raise ValueError(
            f"padding is {padding!r}; expected an int, or for each of the {num_dims} spatial "
            "dimension(s) an int or a (low, high) pair, none negative (slice the input to crop it)"
        )
    return tuple((int(low), int(high)) for low, high in pairs)
