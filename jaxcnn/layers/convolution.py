"""One convolution, two lowerings: XLA's own, and its sums in another order where XLA is slow.

On a CPU XLA is slow at several kinds of float32 convolution, the more so inside a loop over
training steps, and all of them can be written otherwise, with the same sums:

- Few channels, such as LeNet-5's: far below the matrix-product rate. A banded (Toeplitz) matrix
  made of the kernel yields a small tile of outputs at once; the zeros in it cost fewer
  multiplications than the product saves. It meets bands of rows and columns of one image
  (`bands.py`), or, twice as fast, patches of many that lie side by side (`batch_minor.py`).
- Many channels: XLA's convolution runs at the rate of its matrix products, and Winograd's takes
  fewer of them, for kernels of 3x3 and 5x5 (`winograd.py`).
- The gradient of the kernel, elsewhere: as a convolution over 16 images at a time, their number
  taking the channels' place, where there are few channels (pairs of rows as twice the features took
  300 us for LeNet-5's C1, 600 without); else as one product for each row of the kernel
  (`_kernel_gradient`).
- A stride over few channels, AlexNet's first layer: each block of stride x stride pixels becomes
  the channels of one pixel (`_space_to_depth`). Groups are convolutions of their own.

XLA's convolution into few features uses one core only. Cutting the batch in two or four for it
gained nothing, nor did two CPU devices in the place of one with two threads (LeNet-5 trained on
14,100 images/s, not 19,100).

`nn.Conv(..., conv_general_dilated=conv_general_dilated)` takes it; modules, parameters and
checkpoints do not know. The platform is chosen when the program is lowered: GPU and TPU programs
hold XLA's convolution.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

from jaxcnn.layers import batch_minor
from jaxcnn.layers.bands import bands
from jaxcnn.layers.padding import Pads
from jaxcnn.layers.winograd import winograd, winograd_kernel_gradient

# From so many images on, those of few channels lie side by side.
MIN_BATCH = 16
# Up to so many channels in and out, both beat XLA's convolution forwards. From the three of a
# colour image bands do, up to so many features; images side by side do not (cuda-convnet-18pct's
# step of 128 images 149 ms in bands, 214 side by side), nor either from one channel into 24.
MAX_BAND_CHANNELS = 16
MAX_COLOR_FEATURES = 64
# Up to so many channels in and out, the kernel's gradient is a convolution.
MAX_GRADIENT_CHANNELS = 32
# Up to so many features its rows are taken in pairs, as twice the features.
MAX_PHASED_FEATURES = 8
# The images of that convolution: of 2 to 128, 16 were fastest for LeNet-5's layers, up to 3 times.
GRADIENT_IMAGES = 16
# From so many channels in and out, kernels of 3x3 and 5x5 are faster in fewer multiplications.
MIN_WINOGRAD_CHANNELS = {3: 32, 5: 64}
# Up to so many channels in, a stride is taken apart: with more, it skips too much work.
MAX_STRIDED_CHANNELS = 4


_NHWC = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: Float[Array, "batch *space channels"],
    rhs: Float[Array, "*kernel channels_per_group features"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **kwargs: Any,
) -> Float[Array, "batch *output_space features"]:
    """`jax.lax.conv_general_dilated`, the same arguments and values, in matrix products on a CPU.

    What is float32, [batch, height, width, channels], not dilated and padded by less than the
    kernel takes the other lowering on a CPU, with groups or without; with a stride, if the channels
    are few. All else takes XLA's, as does what asks for a precision or the like.

    Differentiable in both arrays, backwards as often as wanted; where the other lowering is taken,
    JAX refuses forward mode (`jax.jvp`, `jax.hessian`). An infinity or NaN in the images may spread
    over the tile of outputs that it meets, where XLA's stays within the kernel's reach.
    `jax.export` for a CPU wants `DisabledSafetyCheck.custom_call("LayoutConstraint")`, with which
    images are laid side by side.
    """

    def xla(lhs: Array, rhs: Array) -> Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **kwargs,
        )

    output_shape = jax.eval_shape(xla, lhs, rhs).shape  # lax's own errors, if there are any
    if not _is_nhwc(lhs, rhs, dimension_numbers):
        return xla(lhs, rhs)
    if (
        {*(lhs_dilation or ()), *(rhs_dilation or ())} - {1}
        or {lhs.dtype, rhs.dtype} != {jnp.dtype(jnp.float32)}
        or any(value is not None for value in kwargs.values())
        or 0 in output_shape
        or (set(window_strides) != {1} and lhs.shape[-1] > MAX_STRIDED_CHANNELS)
    ):
        return _by_device(xla, lhs, rhs)
    pads = _pads(lhs.shape, rhs.shape, window_strides, padding)
    # Beyond k - 1 a gradient would crop; what crops forwards, and that, XLA may do alone.
    if any(not 0 <= p < k for k, pair in zip(rhs.shape, pads, strict=False) for p in pair):
        return _by_device(xla, lhs, rhs)

    def on_cpu(lhs: Array, rhs: Array) -> Array:
        groups = feature_group_count
        by_group = zip(jnp.split(lhs, groups, -1), jnp.split(rhs, groups, -1), strict=True)
        outputs = [_convolve(x, k, tuple(window_strides), pads) for x, k in by_group]
        return outputs[0] if groups == 1 else jnp.concatenate(outputs, axis=-1)

    def by_platform(lhs: Array, rhs: Array) -> Array:
        return lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=xla)

    return _by_device(by_platform, lhs, rhs)


def _by_device(convolve: Callable[[Array, Array], Array], lhs: Array, rhs: Array) -> Array:
    """`convolve(lhs, rhs)`; where a mesh is set, each of its devices convolves its own images.

    Left to itself, the partitioner sends all images to all devices: for a loop over images, as in
    `_kernel_gradient`, and for XLA's own convolution in groups (openxla/xla#47945).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.size < 2 or len(lhs) % mesh.size or {*mesh.axis_types} != {AxisType.Auto}:
        return convolve(lhs, rhs)
    images = PartitionSpec(mesh.axis_names)  # over all axes
    return jax.shard_map(
        convolve, in_specs=(images, PartitionSpec()), out_specs=images, check_vma=False
    )(lhs, rhs)


def _is_nhwc(lhs: Array, rhs: Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC)


def _pads(
    image_shape: Sequence[int],
    kernel_shape: Sequence[int],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
) -> Pads:
    """As `lax` resolves them."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(image_shape[1:3], kernel_shape[:2], strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def _convolve(images: Array, kernel: Array, strides: tuple[int, ...], pads: Pads) -> Array:
    """A convolution without groups and dilation."""
    if strides != (1, 1):
        images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
        images, kernel = _space_to_depth(images, kernel, strides)
        pads = ((0, 0), (0, 0))
    if images.shape[1:3] == kernel.shape[:2] and not np.any(pads):  # a dense layer
        outputs = images.reshape(len(images), -1) @ kernel.reshape(-1, kernel.shape[-1])
        return outputs.reshape(len(images), 1, 1, -1)
    return _unstrided(images, kernel, pads)


def _space_to_depth(images: Array, kernel: Array, strides: tuple[int, ...]) -> tuple[Array, Array]:
    """Images and kernel of the same convolution at stride 1."""
    batch, *sizes, channels = images.shape
    kernel_sizes = kernel.shape[:2]
    blocks = [-(-k // s) for k, s in zip(kernel_sizes, strides, strict=True)]
    # As many blocks of pixels as there are outputs, and as the kernel reaches beyond the last.
    counts = [
        (n - k) // s + b for n, k, s, b in zip(sizes, kernel_sizes, strides, blocks, strict=True)
    ]
    wanted = [c * s for c, s in zip(counts, strides, strict=True)]
    missing = [(0, max(0, w - n)) for w, n in zip(wanted, sizes, strict=True)]
    images = jnp.pad(images, ((0, 0), *missing, (0, 0)))[:, : wanted[0], : wanted[1]]
    images = images.reshape(batch, counts[0], strides[0], counts[1], strides[1], channels)
    images = images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, *counts, -1)
    missing = [(0, b * s - k) for b, s, k in zip(blocks, strides, kernel_sizes, strict=True)]
    kernel = jnp.pad(kernel, (*missing, (0, 0), (0, 0)))
    kernel = kernel.reshape(blocks[0], strides[0], blocks[1], strides[1], channels, -1)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
    return images, kernel.reshape(*blocks, -1, kernel.shape[-1])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _unstrided(images: Array, kernel: Array, pads: Pads) -> Array:
    """A convolution at stride 1."""
    images = _pad(images, pads)
    if _is_minimal(kernel):
        return winograd(images, kernel)
    if _lie_side_by_side(images, kernel):
        return batch_minor.convolve(images, kernel)
    if _is_narrow(kernel):
        return bands(images, kernel)
    return lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=_NHWC)


def _unstrided_forward(
    images: Array, kernel: Array, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
    return _unstrided(images, kernel, pads), (images, kernel)


def _unstrided_backward(
    pads: Pads, arrays: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = arrays
    if _lie_side_by_side(images, kernel):
        gradient = batch_minor.lay_side_by_side(gradient)
    if _is_minimal(kernel):
        of_kernel = winograd_kernel_gradient(_pad(images, pads), gradient, kernel.shape)
    else:
        of_kernel = _kernel_gradient(_pad(images, pads), gradient)
    if _lie_side_by_side(images, kernel):
        padded = jax.eval_shape(partial(_pad, pads=pads), images).shape
        of_images = batch_minor.images_gradient(gradient, kernel, padded)
        _, pullback = jax.vjp(partial(_pad, pads=pads), images)
        return *pullback(of_images), of_kernel
    if _is_narrow(kernel):
        _, pullback = jax.vjp(lambda images: bands(_pad(images, pads), kernel), images)
        return *pullback(gradient), of_kernel
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    margins = tuple(
        (k - 1 - low, k - 1 - high) for k, (low, high) in zip(kernel.shape[:2], pads, strict=True)
    )
    return _unstrided(gradient, turned, margins), of_kernel


_unstrided.defvjp(_unstrided_forward, _unstrided_backward)


def _is_narrow(kernel: Array) -> bool:
    _, _, channels, features = kernel.shape
    of_color = channels == 3 and features <= MAX_COLOR_FEATURES
    return of_color or max(channels, features) <= MAX_BAND_CHANNELS


def _lie_side_by_side(images: Array, kernel: Array) -> bool:
    return len(images) >= MIN_BATCH and max(kernel.shape[2:]) <= MAX_BAND_CHANNELS


def _is_minimal(kernel: Array) -> bool:
    taps, width, *channels = kernel.shape
    return taps == width and min(channels) >= MIN_WINOGRAD_CHANNELS.get(taps, math.inf)


def _pad(images: Array, pads: Pads) -> Array:
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


def _kernel_gradient(images: Array, gradient: Array) -> Array:
    """The sums of image[y + a, x + b, c] gradient[y, x, o] over y and x, as [a, b, c, o]."""
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, gradient.shape
    if batch >= GRADIENT_IMAGES and max(channels, features) <= MAX_GRADIENT_CHANNELS:
        return _kernel_gradient_by_images(images, gradient)
    kernel_shape = height - rows + 1, width - columns + 1, channels, features
    shifted = [images[:, :, b : b + columns] for b in range(kernel_shape[1])]
    wide = jnp.concatenate(shifted, axis=-1)  # [batch, height, columns, b and c]
    flat = gradient.reshape(-1, features)
    products = [
        wide[:, a : a + rows].reshape(len(flat), -1).T @ flat for a in range(kernel_shape[0])
    ]
    return jnp.stack(products).reshape(kernel_shape)


def _kernel_gradient_by_images(images: Array, gradient: Array) -> Array:
    """The same as a convolution of images and gradient, GRADIENT_IMAGES at a time."""
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, gradient.shape
    kernel_height, kernel_width = height - rows + 1, width - columns + 1
    # Rows in turns go to `phases` images, and in the gradient to as many times the features.
    phases = 2 if features <= MAX_PHASED_FEATURES and rows % 2 == 0 else 1
    parts = -(-batch // GRADIENT_IMAGES)

    def cut(array: Array, axes: tuple[int, ...]) -> Array:
        missing = parts * GRADIENT_IMAGES - batch, -array.shape[1] % phases
        array = jnp.pad(array, (*((0, n) for n in missing), (0, 0), (0, 0)))
        array = array.reshape(parts, GRADIENT_IMAGES, -1, phases, *array.shape[2:])
        return array.transpose(0, *axes)

    def add(total: Array, arrays: tuple[Array, Array]) -> tuple[Array, None]:
        # In the dimensions' usual order: XLA is slow at any other.
        part = lax.conv_general_dilated(*arrays, (1, 1), "VALID", dimension_numbers=_NHWC)
        return total + part, None

    lhs = cut(images, (5, 3, 2, 4, 1))  # [parts, channels, phases, rows, columns, images]
    lhs = lhs.reshape(parts, channels * phases, *lhs.shape[3:])
    rhs = cut(gradient, (2, 4, 1, 3, 5))  # [parts, rows, columns, images, phases, features]
    rhs = rhs.reshape(*rhs.shape[:4], phases * features)
    blocks = lhs.shape[2] - rhs.shape[1] + 1
    start = jnp.zeros((channels * phases, blocks, kernel_width, phases * features))
    total, _ = lax.scan(add, start, (lhs, rhs), unroll=8)  # eight at a time, on all cores
    total = total.reshape(channels, phases, blocks, kernel_width, phases, features)
    total = total.transpose(4, 2, 1, 3, 0, 5)
    total = total.reshape(phases, blocks * phases, kernel_width, channels, features)
    return functools.reduce(jnp.add, [t[p : p + kernel_height] for p, t in enumerate(total)])
