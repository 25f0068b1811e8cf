"""Convolve in fewer multiplications: Winograd's minimal filtering F(2x2, 3x3), F(2x2, 5x5).

Two neighbouring outputs y of a kernel g of r taps over r + 1 pixels d take 2 r products. The same
sums, transposed, multiply two polynomials. Toom and Cook evaluate both at r + 1 points, so that
r + 1 products suffice:

    y = A' [(G g) * (B d)]

In two dimensions, the four outputs of a 2x2 tile take 16 products instead of 36 for a 3x3 kernel,
and 36 instead of 100 for a 5x5 kernel. Over many channels, each of them is a matrix product.

Tiles and products take 4 to 9 times the memory of images and outputs. If they need more than
MAX_BYTES, the batch is split into microbatches. `docs/design/cpu-convolution.md` lists timings and
the variants that were tried.

References:
  Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015, sections 3 and 4.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 2  # rows and columns of outputs in a tile

# Points at which the polynomials are evaluated, in addition to infinity, for each number of taps.
# The points of 5 taps cost one decimal digit of accuracy.
POINTS = {3: (0, 1, -1), 5: (0, 1, -1, 1 / 2, -1 / 2)}

# Products of tiles and kernels that one batched matrix product computes, for each number of taps.
# Each batched product needs a few compiled loops, so larger ones make compiling faster. Products
# of six tiles make the gradient of a 5x5 kernel twice as slow.
PRODUCTS = {3: 4, 5: 3}

# Largest number of taps of which sums transform a kernel faster than a product.
MAX_TAPS_OF_SUMS = 3

# Largest size of all tiles and products of a microbatch: 32 MiB, about the cache that cores share.
MAX_BYTES = 2**25


def winograd(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "taps taps channels features"],
    *,
    is_reversed: bool = False,
) -> Float[Array, "batch height-taps+1 width-taps+1 features"]:
    """Convolve images with a kernel at stride 1 without padding.

    Args:
      images: padded images.
      kernel: kernel of one group, with a number of taps in POINTS.
      is_reversed: whether the kernel is a reversed and transposed one, which a product transforms
        faster than sums.
    """
    by_product = is_reversed or len(kernel) > MAX_TAPS_OF_SUMS
    convolve = functools.partial(_filter, kernel=kernel, by_product=by_product)
    size = _microbatch_size(images, kernel.shape)
    if size == len(images):
        return convolve(images)
    outputs = lax.map(convolve, _split(images, size))
    return outputs.reshape(-1, *outputs.shape[2:])[: len(images)]


def winograd_kernel_gradient(
    images: Float[Array, "batch height width channels"],
    gradient: Float[Array, "batch height-taps+1 width-taps+1 features"],
    kernel_shape: tuple[int, ...],
) -> Float[Array, "taps taps channels features"]:
    """Return the gradient of the kernel of `winograd`.

    Args:
      images: padded images.
      gradient: gradient of the outputs.
      kernel_shape: shape of the kernel.
    """
    kernel = jax.ShapeDtypeStruct(kernel_shape, images.dtype)

    def kernel_gradient(images: Array, gradient: Array) -> Array:
        convolve = functools.partial(_filter, images, by_product=True)
        return jax.linear_transpose(convolve, kernel)(gradient)[0]

    def add(total: Array, microbatch: tuple[Array, Array]) -> tuple[Array, None]:
        return total + kernel_gradient(*microbatch), None

    size = _microbatch_size(images, kernel_shape)
    if size == len(images):
        return kernel_gradient(images, gradient)
    start = jnp.zeros_like(images, shape=kernel_shape)
    total, _ = lax.scan(add, start, (_split(images, size), _split(gradient, size)))
    return total


def _microbatch_size(images: Array, kernel_shape: tuple[int, ...]) -> int:
    """Return the number of images that need at most MAX_BYTES.

    Of the largest number and those down to half of it, it is the largest with the fewest images
    missing in the last microbatch.
    """
    batch, height, width, channels = images.shape
    taps, _, _, features = kernel_shape
    tiles = math.prod(-(-(size - taps + 1) // TILE) for size in (height, width))
    num_bytes = tiles * (taps + 1) ** 2 * (channels + features) * images.dtype.itemsize
    largest = max(1, min(batch, MAX_BYTES // num_bytes))
    return min(range(largest, largest // 2, -1), key=lambda size: -batch % size)


def _split(array: Array, size: int) -> Array:
    """Return [microbatches, size, ...]; zeros fill up the last microbatch."""
    array = jnp.pad(array, ((0, -len(array) % size), *[(0, 0)] * (array.ndim - 1)))
    return array.reshape(-1, size, *array.shape[1:])


def _filter(images: Array, kernel: Array, by_product: bool) -> Array:
    batch, height, width, channels = images.shape
    taps, _, _, features = kernel.shape
    for_outputs, for_kernel, for_images = (m.astype(images.dtype) for m in _matrices(taps))
    # Numbers of rows and columns of tiles.
    rows, columns = (-(-(size - taps + 1) // TILE) for size in (height, width))
    missing = [(0, TILE * n + taps - 1 - size) for n, size in ((rows, height), (columns, width))]
    images = jnp.pad(images, ((0, 0), *missing, (0, 0)))

    in_rows = [images[:, i : i + TILE * rows : TILE] for i in range(taps + 1)]
    transform = _product_of_kernel if by_product else _sums_of_kernel
    products = []
    for row_weights, row_for_kernel in zip(for_images, for_kernel, strict=True):
        sums = _combine(row_weights, in_rows)
        in_columns = [sums[:, :, j : j + TILE * columns : TILE] for j in range(taps + 1)]
        row: list[Array] = []
        for first in range(0, taps + 1, PRODUCTS[taps]):
            some = slice(first, first + PRODUCTS[taps])
            tiles = [_combine(weights, in_columns) for weights in for_images[some]]
            kernels = transform(row_for_kernel, for_kernel[some], kernel)
            row.extend(jnp.stack(tiles).reshape(len(tiles), -1, channels) @ kernels)
        products.append(row)

    by_row = [[_combine(w, column) for column in zip(*products, strict=True)] for w in for_outputs]
    outputs = jnp.stack([jnp.stack([_combine(w, row) for w in for_outputs]) for row in by_row])
    outputs = outputs.reshape(TILE, TILE, batch, rows, columns, features)
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)
    outputs = outputs.reshape(batch, TILE * rows, TILE * columns, features)
    return outputs[:, : height - taps + 1, : width - taps + 1]


def _product_of_kernel(
    row_weights: Float[np.ndarray, " taps"],
    weights: Float[np.ndarray, "tiles taps"],
    kernel: Float[Array, "taps taps channels features"],
) -> Float[Array, "tiles channels features"]:
    """Transform the kernel by one product with the Kronecker product of the weights.

    This is 7 to 17 times as fast as a product for each axis.
    """
    matrix = np.kron(row_weights, weights)
    taps = kernel.reshape(matrix.shape[1], -1)
    kernels = jnp.matmul(matrix, taps, precision=lax.Precision.HIGHEST)
    return kernels.reshape(-1, *kernel.shape[2:])


def _sums_of_kernel(
    row_weights: Float[np.ndarray, " taps"],
    weights: Float[np.ndarray, "tiles taps"],
    kernel: Float[Array, "taps taps channels features"],
) -> Float[Array, "tiles channels features"]:
    """Transform the kernel term by term, like the images."""
    columns = [*_combine(row_weights, [*kernel])]
    return jnp.stack([_combine(some, columns) for some in weights])


@functools.cache
def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A', G and B, scaled so that the entries of B are integers."""
    points = np.array(POINTS[taps])

    def powers(num: int) -> np.ndarray:
        """Return powers 0 to num - 1 of each point; the row of infinity selects the highest."""
        return np.vstack([np.vander(points, num, increasing=True), np.eye(num)[-1]])

    b = np.linalg.inv(powers(taps + 1)).round(12).T
    scale = 1 / np.where(b, np.abs(b), np.inf).min(axis=1, keepdims=True)
    a, g = powers(TILE).T, powers(taps) / scale
    return a, g, (scale * b).round()


def _combine(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    """Return the weighted sum of arrays, term by term so that XLA fuses it with its consumer."""
    terms = [w * array for w, array in zip(weights, arrays, strict=True) if w]
    return functools.reduce(jnp.add, terms)
