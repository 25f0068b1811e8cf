"""The gradient of a kernel, where XLA's is slow on a CPU.

With few channels it is a convolution over 16 images at a time, their number taking the place of
the channels: pairs of rows as twice the features took 300 us for LeNet-5's C1, 600 without. With
more channels it is one product for each row of the kernel.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution.geometry import NHWC

# Up to this many channels in and out, the gradient is a convolution.
MAX_GRADIENT_CHANNELS = 32
# Up to this many features, rows are taken in pairs, as twice the features.
MAX_PHASED_FEATURES = 8
# Images of that convolution: of 2 to 128, 16 were fastest for LeNet-5's layers, up to 3 times.
GRADIENT_IMAGES = 16


def kernel_gradient_by_products(
    images: Float[Array, "batch height width channels"],
    outputs: Float[Array, "batch rows columns features"],
) -> Float[Array, "height-rows+1 width-columns+1 channels features"]:
    """Sum image[y + a, x + b, c] output[y, x, o] over images, y and x, as [a, b, c, o]."""
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, outputs.shape
    if batch >= GRADIENT_IMAGES and max(channels, features) <= MAX_GRADIENT_CHANNELS:
        return _by_convolution(images, outputs)
    kernel_shape = height - rows + 1, width - columns + 1, channels, features
    shifted = [images[:, :, b : b + columns] for b in range(kernel_shape[1])]
    wide = jnp.concatenate(shifted, axis=-1)  # [batch, height, columns, b and c]
    flat = outputs.reshape(-1, features)
    products = [
        wide[:, a : a + rows].reshape(len(flat), -1).T @ flat for a in range(kernel_shape[0])
    ]
    return jnp.stack(products).reshape(kernel_shape)


def _by_convolution(images: Array, outputs: Array) -> Array:
    """Convolve images with outputs, GRADIENT_IMAGES at a time."""
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, outputs.shape
    kernel_height, kernel_width = height - rows + 1, width - columns + 1
    # Rows alternate between `phases` images and, in the outputs, between as many sets of features.
    phases = 2 if features <= MAX_PHASED_FEATURES and rows % 2 == 0 else 1
    chunks = -(-batch // GRADIENT_IMAGES)

    def cut(array: Array, axes: tuple[int, ...]) -> Array:
        missing = chunks * GRADIENT_IMAGES - batch, -array.shape[1] % phases
        array = jnp.pad(array, (*((0, n) for n in missing), (0, 0), (0, 0)))
        array = array.reshape(chunks, GRADIENT_IMAGES, -1, phases, *array.shape[2:])
        return array.transpose(0, *axes)

    def add(total: Array, arrays: tuple[Array, Array]) -> tuple[Array, None]:
        # In the usual order of dimensions: XLA is slow at any other.
        chunk = lax.conv_general_dilated(*arrays, (1, 1), "VALID", dimension_numbers=NHWC)
        return total + chunk, None

    lhs = cut(images, (5, 3, 2, 4, 1))  # [chunks, channels, phases, rows, columns, images]
    lhs = lhs.reshape(chunks, channels * phases, *lhs.shape[3:])
    rhs = cut(outputs, (2, 4, 1, 3, 5))  # [chunks, rows, columns, images, phases, features]
    rhs = rhs.reshape(*rhs.shape[:4], phases * features)
    blocks = lhs.shape[2] - rhs.shape[1] + 1
    shape = channels * phases, blocks, kernel_width, phases * features
    start = jnp.zeros_like(images, shape=shape)
    total, _ = lax.scan(add, start, (lhs, rhs), unroll=8)  # eight at a time, on all cores
    total = total.reshape(channels, phases, blocks, kernel_width, phases, features)
    total = total.transpose(4, 2, 1, 3, 0, 5)
    total = total.reshape(phases, blocks * phases, kernel_width, channels, features)
    return functools.reduce(jnp.add, [t[p : p + kernel_height] for p, t in enumerate(total)])
