"""Convolution in fewer multiplications: Winograd's minimal filtering F(2x2, 3x3), F(2x2, 5x5).

Two neighbouring outputs y of a kernel g of r taps over r + 1 pixels d take 2 r products. The same
sums, transposed, multiply two polynomials, for which Toom and Cook evaluate both at r + 1 points
and take r + 1 products:

    y = A' [(G g) * (B d)]

For rows and columns both, the four outputs of a 2x2 tile take 16 products where a 3x3 kernel has
36, and 36 where a 5x5 kernel has 100. Over many channels, each is a product of matrices.

On two cores, AlexNet's conv4 of 16 images took 28, 32 and 36 ms (forwards, gradient of the images,
of the kernel), and takes 21, 23 and 23. No faster were one batched product for all sixteen, whose
tiles are written out and read again (28, 53, 30 ms); tiles of 4x4, F(4x4, 3x3) (30, 61, 44 ms, and
a digit less); and a 5x5 kernel as four of 3x3 (conv2 forwards 50 ms, with F(2x2, 5x5) 35).

Tiles and products take 4 to 9 times the memory of images and outputs. Where that is much, the batch
goes through in parts: AlexNet's step of 64 images took 941 MiB beside its state and takes 593, in
1.5 s and not 1.6. Parts of 16 images in all layers slow down smaller ones (alexnet-32's step by a
quarter).

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

TILE = 2  # outputs of a tile, along each side

# Where the polynomials are evaluated, besides at infinity. Those of 3 taps cost no accuracy worth
# mentioning, those of 5 a digit.
POINTS = {3: (0, 1, -1), 5: (0, 1, -1, 1 / 2, -1 / 2)}

# Of tiles and products at once: up to 128 MiB a batch goes through whole, else in parts.
MAX_BYTES = 2**27


def winograd(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "taps taps channels features"],
) -> Float[Array, "batch height-taps+1 width-taps+1 features"]:
    """A convolution at stride 1 without padding, its kernel's size in POINTS."""
    parts = _parts(images, kernel.shape)
    if len(parts) == 1:
        return _filter(images, kernel)
    outputs = lax.map(lambda part: _filter(part, kernel), parts)
    return outputs.reshape(-1, *outputs.shape[2:])[: len(images)]


def winograd_kernel_gradient(
    images: Float[Array, "batch height width channels"],
    gradient: Float[Array, "batch height-taps+1 width-taps+1 features"],
    kernel_shape: tuple[int, ...],
) -> Float[Array, "taps taps channels features"]:
    """What `winograd` sends back to its kernel; `gradient` is that of its outputs."""
    kernel = jax.ShapeDtypeStruct(kernel_shape, images.dtype)

    def of_part(images: Array, gradient: Array) -> Array:
        return jax.linear_transpose(lambda kernel: _filter(images, kernel), kernel)(gradient)[0]

    parts = _parts(images, kernel_shape)
    if len(parts) == 1:
        return of_part(images, gradient)
    arrays = parts, _cut(gradient, len(parts))
    start = jnp.zeros_like(images, shape=kernel_shape)
    total, _ = lax.scan(lambda total, part: (total + of_part(*part), None), start, arrays)
    return total


def _parts(images: Array, kernel_shape: tuple[int, ...]) -> Array:
    """The images in as few parts as keep to MAX_BYTES."""
    batch, height, width, channels = images.shape
    taps, _, _, features = kernel_shape
    tiles = batch * math.prod(-(-(size - taps + 1) // TILE) for size in (height, width))
    num_bytes = tiles * (taps + 1) ** 2 * (channels + features) * images.dtype.itemsize
    return _cut(images, min(batch, -(-num_bytes // MAX_BYTES)))


def _cut(array: Array, num_parts: int) -> Array:
    """[parts, batch / parts, ...], filled up with zeros."""
    missing = -len(array) % num_parts
    array = jnp.pad(array, ((0, missing), *[(0, 0)] * (array.ndim - 1)))
    return array.reshape(num_parts, -1, *array.shape[1:])


def _filter(images: Array, kernel: Array) -> Array:
    batch, height, width, channels = images.shape
    taps, _, _, features = kernel.shape
    for_outputs, for_kernel, for_images = (m.astype(images.dtype) for m in _matrices(taps))
    rows, columns = (-(-(size - taps + 1) // TILE) for size in (height, width))  # of tiles
    missing = [(0, TILE * n + taps - 1 - size) for n, size in ((rows, height), (columns, width))]
    images = jnp.pad(images, ((0, 0), *missing, (0, 0)))

    kernels = jnp.einsum(
        "xa,yb,abco->xyco", for_kernel, for_kernel, kernel, precision=lax.Precision.HIGHEST
    )
    in_rows = [images[:, i : i + TILE * rows : TILE] for i in range(taps + 1)]
    products = []
    for x, weights in enumerate(for_images):
        sums = _combine(weights, in_rows)
        in_columns = [sums[:, :, j : j + TILE * columns : TILE] for j in range(taps + 1)]
        tiles = [_combine(weights, in_columns).reshape(-1, channels) for weights in for_images]
        products.append([tile @ kernels[x, y] for y, tile in enumerate(tiles)])

    by_row = [[_combine(w, column) for column in zip(*products, strict=True)] for w in for_outputs]
    outputs = jnp.stack([jnp.stack([_combine(w, row) for w in for_outputs]) for row in by_row])
    outputs = outputs.reshape(TILE, TILE, batch, rows, columns, features)
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)
    outputs = outputs.reshape(batch, TILE * rows, TILE * columns, features)
    return outputs[:, : height - taps + 1, : width - taps + 1]


@functools.cache
def _matrices(taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A', G and B; rows of B are whole numbers, for which those of G are divided."""
    points = np.array(POINTS[taps])

    def powers(num: int) -> np.ndarray:
        """Each point's powers, below `num`; infinity has the highest alone."""
        return np.vstack([np.vander(points, num, increasing=True), np.eye(num)[-1]])

    b = np.linalg.inv(powers(taps + 1)).round(12).T
    scale = 1 / np.where(b, np.abs(b), np.inf).min(axis=1, keepdims=True)
    a, g = powers(TILE).T, powers(taps) / scale
    return a, g, (scale * b).round()


def _combine(weights: np.ndarray, arrays: Sequence[Array]) -> Array:
    """The weighted sum of arrays; written out, so that it fuses with what reads it."""
    terms = [w * array for w, array in zip(weights, arrays, strict=True) if w]
    return functools.reduce(jnp.add, terms)
