"""The gradient of a kernel.

    gradient[a, b, c, o] = sum over n, y, x of images[n, y + a, x + b, c] outputs[n, y, x, o]

In one dimension, pixels (1, 2, 3, 4) and outputs (1, 10) give a kernel of three taps:

    gradient[0] = 1 * 1 + 2 * 10 = 21
    gradient[1] = 2 * 1 + 3 * 10 = 32
    gradient[2] = 3 * 1 + 4 * 10 = 43

So the gradient is itself a convolution. Its kernel is `outputs`, its channels are the images n,
and its batch is the channels c.

- With at most MAX_GRADIENT_CHANNELS channels and features, and at least GRADIENT_IMAGES images, it
  is computed by XLA's convolution over GRADIENT_IMAGES images at a time.
- Otherwise it is one matrix product for each row a of the kernel.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution.geometry import NHWC

# Largest number of channels and of features at which the gradient is computed as a convolution.
MAX_GRADIENT_CHANNELS = 16
# Largest number of features at which pairs of rows become twice as many features.
MAX_PHASED_FEATURES = 8
# Images in each of these convolutions. Of 2 to 128 images, 16 were fastest for LeNet-5's layers.
GRADIENT_IMAGES = 16


def kernel_gradient_by_products(
    images: Float[Array, "batch height width channels"],
    outputs: Float[Array, "batch rows columns features"],
) -> Float[Array, "height-rows+1 width-columns+1 channels features"]:
    """Return the gradient of a kernel at stride 1.

    Args:
      images: padded images.
      outputs: gradient of the outputs.
    """
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, outputs.shape
    if batch >= GRADIENT_IMAGES and max(channels, features) <= MAX_GRADIENT_CHANNELS:
        return _by_convolution(images, outputs)
    kernel_shape = height - rows + 1, width - columns + 1, channels, features
    shifted = [images[:, :, b : b + columns] for b in range(kernel_shape[1])]
    wide = jnp.concatenate(shifted, axis=-1)  # [batch, height, columns, b and c]
    flat = outputs.reshape(-1, features)

    def product(a: Array) -> Array:
        return lax.dynamic_slice_in_dim(wide, a, rows, axis=1).reshape(len(flat), -1).T @ flat

    # A loop, because XLA would keep a copy of the images for each row at the same time.
    return lax.map(product, jnp.arange(kernel_shape[0])).reshape(kernel_shape)


def _by_convolution(images: Array, outputs: Array) -> Array:
    """Convolve images with outputs, GRADIENT_IMAGES at a time.

    With two phases, image row 2 s + p becomes row s of image phase p, and output row 2 r + q
    becomes row r of output phase q. The convolution of phases p and q yields at s the terms whose
    rows differ by a = 2 s + p - q. Row a of the gradient is their sum over q.
    """
    (batch, height, width, channels), (_, rows, columns, features) = images.shape, outputs.shape
    kernel_height, kernel_width = height - rows + 1, width - columns + 1
    phases = 2 if features <= MAX_PHASED_FEATURES and rows % 2 == 0 else 1
    chunks = -(-batch // GRADIENT_IMAGES)

    def split(array: Array, axes: tuple[int, ...]) -> Array:
        array = array.transpose(3, 1, 2, 0)
        missing = -array.shape[1] % phases, chunks * GRADIENT_IMAGES - batch
        array = jnp.pad(array, ((0, 0), (0, missing[0]), (0, 0), (0, missing[1])))
        array = array.reshape(len(array), -1, phases, array.shape[2], chunks, GRADIENT_IMAGES)
        return array.transpose(4, *axes)

    def add(total: Array, arrays: tuple[Array, Array]) -> tuple[Array, None]:
        # The dimensions are in NHWC order because XLA is slow at any other order.
        chunk = lax.conv_general_dilated(*arrays, (1, 1), "VALID", dimension_numbers=NHWC)
        return total + chunk, None

    lhs = split(images, (0, 2, 1, 3, 5))  # [chunks, channels, phases, rows, columns, images]
    lhs = lhs.reshape(chunks, channels * phases, *lhs.shape[3:])
    rhs = split(outputs, (1, 3, 5, 2, 0))  # [chunks, rows, columns, images, phases, features]
    rhs = rhs.reshape(*rhs.shape[:4], phases * features)
    blocks = lhs.shape[2] - rhs.shape[1] + 1
    shape = channels * phases, blocks, kernel_width, phases * features
    start = jnp.zeros_like(images, shape=shape)
    # Eight unrolled convolutions run on all cores at once.
    total, _ = lax.scan(add, start, (lhs, rhs), unroll=8)
    total = total.reshape(channels, phases, blocks, kernel_width, phases, features)
    total = total.transpose(4, 2, 1, 3, 0, 5)
    total = total.reshape(phases, blocks * phases, kernel_width, channels, features)
    return functools.reduce(jnp.add, [t[p : p + kernel_height] for p, t in enumerate(total)])
