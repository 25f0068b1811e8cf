"""Which form a convolution and its two gradients take on a CPU.

- Few channels, such as LeNet-5's: XLA stays far below the matrix-product rate. A banded (Toeplitz)
  matrix made of the kernel yields a small tile of outputs at once; the zeros in it cost fewer
  multiplications than the product saves. It is multiplied with bands of rows and columns of one
  image (`bands.py`) or, twice as fast, with patches of a whole batch whose images lie side by side
  (`batch_minor.py`).
- Many channels: XLA's convolution runs at the rate of its matrix products, and Winograd's takes
  fewer of them, for kernels of 3x3 and 5x5 (`winograd.py`).
- A kernel as large as the image: one matrix product.
- The gradient of other kernels: `kernel_gradient.py`.
- A stride over few channels, AlexNet's first layer: each block of stride x stride pixels becomes
  the channels of one pixel (`_blocks_of_images`).
- Groups are convolutions of their own.

XLA's convolution into few features uses one core only. Cutting the batch in two or four for it
gained nothing, nor did two CPU devices instead of one with two threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution import batch_minor
from jaxcnn.layers.cpu_convolution.bands import bands
from jaxcnn.layers.cpu_convolution.geometry import NHWC, Geometry
from jaxcnn.layers.cpu_convolution.kernel_gradient import kernel_gradient_by_products
from jaxcnn.layers.cpu_convolution.winograd import winograd, winograd_kernel_gradient
from jaxcnn.layers.padding import Pads

# From this many images on, images of few channels lie side by side.
MIN_BATCH = 16
# Up to this many channels in and out, both banded forms beat XLA's convolution. From the three
# channels of a colour image `bands` does, up to MAX_COLOR_FEATURES; side by side does not
# (cuda-convnet-18pct's step of 128 images takes 149 ms in bands, 214 side by side).
MAX_BAND_CHANNELS = 16
MAX_COLOR_FEATURES = 64
# From this many channels in and out, kernels of 3x3 and 5x5 take fewer multiplications.
MIN_WINOGRAD_CHANNELS = {3: 32, 5: 64}

Form = Literal["dense", "winograd", "batch_minor", "bands", "xla"]


def convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "batch rows columns features"]:
    """Convolve images with a kernel.

    Args:
      images: images to convolve.
      kernel: kernel of all groups.
      geometry: sizes, strides, padding and groups.
      constrain_layouts: whether the program may hold layout constraints.
    """

    def of_group(images: Array, kernel: Array) -> Array:
        return _convolve(
            _blocks_of_images(images, geometry),
            _blocks_of_kernel(kernel, geometry),
            geometry.unit_stride(),
            constrain_layouts,
        )

    return _by_group(of_group, images, kernel, geometry.groups)


def images_gradient(
    outputs: Float[Array, "batch rows columns features"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the images."""

    def of_group(outputs: Array, kernel: Array) -> Array:
        gradient = _images_gradient(
            outputs, _blocks_of_kernel(kernel, geometry), geometry.unit_stride(), constrain_layouts
        )
        images = (len(outputs), *geometry.image_size, kernel.shape[2]), outputs.dtype
        return _transpose(partial(_blocks_of_images, geometry=geometry), *images)(gradient)

    return _by_group(of_group, outputs, kernel, geometry.groups)


def kernel_gradient(
    images: Float[Array, "batch height width channels"],
    outputs: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "kernel_height kernel_width channels_per_group features"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the kernel."""

    def of_group(images: Array, outputs: Array) -> Array:
        gradient = _kernel_gradient(
            _blocks_of_images(images, geometry), outputs, geometry.unit_stride(), constrain_layouts
        )
        kernel = (*geometry.kernel_size, images.shape[3], outputs.shape[3]), images.dtype
        return _transpose(partial(_blocks_of_kernel, geometry=geometry), *kernel)(gradient)

    return _by_group(of_group, images, outputs, geometry.groups)


def _by_group(fun: Callable[..., Array], first: Array, second: Array, groups: int) -> Array:
    """Apply `fun` to each group; the last axis of operands and result holds one after the other."""
    pairs = zip(jnp.split(first, groups, -1), jnp.split(second, groups, -1), strict=True)
    results = [fun(*pair) for pair in pairs]
    return results[0] if groups == 1 else jnp.concatenate(results, axis=-1)


def _transpose(
    fun: Callable[[Array], Array], shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[Array], Array]:
    """Return the transpose of a linear function of an array of that shape."""
    transposed = jax.linear_transpose(fun, jax.ShapeDtypeStruct(shape, dtype))
    return lambda array: transposed(array)[0]


# At stride 1


def form(
    num_images: int, kernel_shape: tuple[int, ...], geometry: Geometry, constrain_layouts: bool
) -> Form:
    """Choose the form of a convolution of one group at stride 1."""
    taps, width, channels, features = kernel_shape
    if geometry.image_size == geometry.kernel_size and not np.any(geometry.pads):
        return "dense"
    if taps == width and min(channels, features) >= MIN_WINOGRAD_CHANNELS.get(taps, math.inf):
        return "winograd"
    is_narrow = max(channels, features) <= MAX_BAND_CHANNELS
    if is_narrow and num_images >= MIN_BATCH and constrain_layouts:
        return "batch_minor"
    if is_narrow or (channels == 3 and features <= MAX_COLOR_FEATURES):
        return "bands"
    return "xla"


def _convolve(images: Array, kernel: Array, geometry: Geometry, constrain_layouts: bool) -> Array:
    match form(len(images), kernel.shape, geometry, constrain_layouts):
        case "dense":
            outputs = images.reshape(len(images), -1) @ kernel.reshape(-1, kernel.shape[-1])
            return outputs.reshape(len(images), 1, 1, -1)
        case "winograd":
            return winograd(_pad(images, geometry.pads), kernel)
        case "batch_minor":
            return batch_minor.convolve(_pad(images, geometry.pads), kernel)
        case "bands":
            return bands(_pad(images, geometry.pads), kernel)
        case "xla":
            return lax.conv_general_dilated(
                _pad(images, geometry.pads), kernel, (1, 1), "VALID", dimension_numbers=NHWC
            )


def _images_gradient(
    outputs: Array, kernel: Array, geometry: Geometry, constrain_layouts: bool
) -> Array:
    pad = partial(_pad, pads=geometry.pads)
    images = geometry.image_shape(outputs, kernel), outputs.dtype
    match form(len(outputs), kernel.shape, geometry, constrain_layouts):
        case "dense":
            flat = outputs.reshape(len(outputs), -1) @ kernel.reshape(-1, kernel.shape[-1]).T
            return flat.reshape(images[0])
        case "batch_minor":
            padded = jax.eval_shape(pad, jax.ShapeDtypeStruct(*images)).shape
            gradient = batch_minor.images_gradient(
                batch_minor.lay_side_by_side(outputs), kernel, padded
            )
            return _transpose(pad, *images)(gradient)
        case "bands":
            return _transpose(lambda images: bands(pad(images), kernel), *images)(outputs)
        case _:  # a convolution with the kernel turned around
            turned = kernel[::-1, ::-1].swapaxes(2, 3)
            margins = tuple(
                (k - 1 - low, k - 1 - high)
                for k, (low, high) in zip(geometry.kernel_size, geometry.pads, strict=True)
            )
            turned_geometry = geometry._replace(image_size=outputs.shape[1:3], pads=margins)
            return _convolve(outputs, turned, turned_geometry, constrain_layouts)


def _kernel_gradient(
    images: Array, outputs: Array, geometry: Geometry, constrain_layouts: bool
) -> Array:
    shape = geometry.kernel_shape(images, outputs)
    match form(len(images), shape, geometry, constrain_layouts):
        case "dense":
            flat = images.reshape(len(images), -1).T @ outputs.reshape(len(outputs), -1)
            return flat.reshape(shape)
        case "winograd":
            return winograd_kernel_gradient(_pad(images, geometry.pads), outputs, shape)
        case "batch_minor":
            outputs = batch_minor.lay_side_by_side(outputs)
            return kernel_gradient_by_products(_pad(images, geometry.pads), outputs)
        case _:
            return kernel_gradient_by_products(_pad(images, geometry.pads), outputs)


def _pad(images: Array, pads: Pads) -> Array:
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


# From a stride to stride 1: each block of stride x stride pixels becomes the channels of one pixel.


def _blocks_of_images(images: Array, geometry: Geometry) -> Array:
    """Pad the images and take blocks of their pixels as channels; as they are at stride 1."""
    if geometry.strides == (1, 1):
        return images
    images = _pad(images, geometry.pads)
    rows, columns = geometry.unit_stride().image_size
    down, right = geometry.strides
    batch, height, width, channels = images.shape
    missing = (0, max(0, rows * down - height)), (0, max(0, columns * right - width))
    images = _pad(images, missing)[:, : rows * down, : columns * right]
    images = images.reshape(batch, rows, down, columns, right, channels)
    return images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def _blocks_of_kernel(kernel: Array, geometry: Geometry) -> Array:
    """Return the kernel for blocks of pixels; as it is at stride 1."""
    if geometry.strides == (1, 1):
        return kernel
    rows, columns = geometry.unit_stride().kernel_size
    down, right = geometry.strides
    height, width, channels, features = kernel.shape
    missing = (0, rows * down - height), (0, columns * right - width)
    kernel = jnp.pad(kernel, (*missing, (0, 0), (0, 0)))
    kernel = kernel.reshape(rows, down, columns, right, channels, features)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(rows, columns, -1, features)
