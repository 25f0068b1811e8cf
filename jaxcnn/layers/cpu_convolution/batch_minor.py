"""Convolve few channels with the batch as the minor dimension: [channels, height, width, batch].

A row of such an array holds one pixel of one channel for all images. An output tile of 2x2 depends
on a patch of the image, in whole blocks of 2x2 pixels. A 3x3 kernel has patches of 2x2 blocks, a
5x5 kernel of 3x3 blocks. The product of a banded matrix of the kernel with the patches, as in
`bands.py`, is a sum over the rows of blocks, because then one array of strips serves all rows
(`_tile_products`). If an output is a sum of at most MAX_STENCIL_TAPS products, these are written
out instead, as a sum of shifted images (`_stencil`).

With few channels a pixel is too short for a processor's vector registers. Here every operation runs
over a row of `batch` numbers. cuda-convnet stored images in the same order on a GPU.

Functions take and return arrays of shape [batch, height, width, channels]. A layout constraint
makes XLA store them batch-minor, and XLA keeps that layout through the activations and pools
between two convolutions. Without the constraint XLA transposes before and after each convolution.
"""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Float

TILE = 2  # rows and columns of outputs in a tile

# Largest number of products in an output, kernel height x width x channels, that is written out.
MAX_STENCIL_TAPS = 32

# Largest number of images whose outputs XLA may fuse with the next layer.
MAX_FUSED_IMAGES = 32


def to_batch_minor(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "channels height width batch"]:
    """Return the images with the batch as the last dimension, stored in that order."""
    images = with_layout_constraint(images, Layout((3, 1, 2, 0)))
    rows = with_layout_constraint(images.transpose(3, 1, 2, 0), Layout((0, 1, 2, 3)))
    # Without the barrier XLA computes the images again for each operation that reads them.
    rows = lax.optimization_barrier(rows)
    # XLA may choose another layout on either side of a barrier.
    return with_layout_constraint(rows, Layout((0, 1, 2, 3)))


def from_batch_minor(
    rows: Float[Array, "channels height width batch"],
) -> Float[Array, "batch height width channels"]:
    """Return the images with the batch as the first dimension, still stored batch-minor."""
    images = with_layout_constraint(rows.transpose(3, 1, 2, 0), Layout((3, 1, 2, 0)))
    # JAX misreads the result of a program that ends in a layout constraint (see
    # docs/layout_constraint.md). XLA removes this multiplication, but only after the layouts of
    # results are assigned.
    return images * np.ones((), images.dtype)


def store_batch_minor(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height width channels"]:
    """Return the same images, stored batch-minor."""
    # Without a second constraint, XLA cancels this transposition and one that follows.
    return to_batch_minor(images).transpose(3, 1, 2, 0)


def convolve(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
) -> Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"]:
    """Convolve images with a kernel at stride 1 without padding.

    Args:
      images: padded images.
      kernel: kernel of one group.
    """
    if math.prod(kernel.shape[:3]) <= MAX_STENCIL_TAPS:
        return _stencil(images, kernel)
    geometry = _Tiles(images.shape, kernel.shape)
    rows = to_batch_minor(jnp.pad(images, ((0, 0), *geometry.missing, (0, 0))))
    outputs = _tile_products(rows, geometry.matrices(kernel), geometry)
    height, width = geometry.outputs
    return _fused(outputs[:, :height, :width])


def images_gradient(
    gradient: Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    image_shape: tuple[int, ...],
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of the images of `convolve`.

    Args:
      gradient: gradient of the outputs.
      kernel: kernel of one group.
      image_shape: shape of the padded images.
    """
    batch, height, width, channels = image_shape
    geometry = _Tiles(image_shape, kernel.shape)
    missing = [(0, n - m) for n, m in zip(geometry.padded_outputs, geometry.outputs, strict=True)]
    rows = jnp.pad(gradient.transpose(3, 1, 2, 0), ((0, 0), *missing, (0, 0)))
    matrices, (down, across) = geometry.matrices(kernel), geometry.blocks
    # [tile_features, tiles]. A stack, because XLA's loops over a transposed array divide by the
    # sizes of its axes for each number, 31 us for 32 images of C3; this takes 6.
    tiles = jnp.stack([rows[:, p::TILE, q::TILE] for p in range(TILE) for q in range(TILE)])
    tiles = lax.optimization_barrier(tiles).reshape(matrices.shape[2], -1)
    shape = across, TILE, TILE, channels, *geometry.tiles, batch
    terms = []
    for a, matrix in enumerate(matrices):
        # A product is faster if it sums over the first axis of both operands. The barrier keeps XLA
        # from turning the matrix back.
        turned = lax.optimization_barrier(matrix.T)
        for b, blocks in enumerate((turned.T @ tiles).reshape(shape)):
            pads = (a, down - 1 - a), (b, across - 1 - b)
            terms.append(jnp.pad(blocks, ((0, 0), (0, 0), (0, 0), *pads, (0, 0))))
    patches = functools.reduce(jnp.add, terms)  # [TILE, TILE, channels, rows, columns, batch]
    patches = patches.transpose(2, 3, 0, 4, 1, 5)
    patches = patches.reshape(channels, *geometry.padded_images, batch)
    return from_batch_minor(patches[:, :height, :width])


def _tile_products(
    rows: Float[Array, "channels height width batch"],
    matrices: Float[Array, "blocks_down blocks_across_channels tile_features"],
    geometry: _Tiles,
) -> Float[Array, "features rows columns batch"]:
    """Multiply the patch of each tile by the banded matrix, one row of blocks after the other."""
    channels, height, width, batch = rows.shape
    tiles, (down, across) = geometry.tiles, geometry.blocks
    blocks = rows.reshape(channels, height // TILE, TILE, width // TILE, TILE, batch)
    blocks = blocks.transpose(2, 4, 0, 1, 3, 5)  # [TILE, TILE, channels, rows, columns, batch]
    strips = jnp.stack([blocks[..., b : b + tiles[1], :] for b in range(across)])
    # Without the barrier XLA cuts the strips again for each product.
    strips = lax.optimization_barrier(strips)
    products = [
        matrices[a].T @ strips[..., a : a + tiles[0], :, :].reshape(matrices.shape[1], -1)
        for a in range(down)
    ]
    outputs = functools.reduce(jnp.add, products).reshape(TILE, TILE, -1, *tiles, batch)
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)
    return outputs.reshape(-1, TILE * tiles[0], TILE * tiles[1], batch)


def _stencil(images: Array, kernel: Array) -> Array:
    rows, columns, channels, _ = kernel.shape
    pixels = to_batch_minor(images)
    height, width = pixels.shape[1] - rows + 1, pixels.shape[2] - columns + 1

    def sum_of_row(a: int) -> Array:
        terms = [
            pixels[c, None, a : a + height, b : b + width] * kernel[a, b, c, :, None, None, None]
            for b in range(columns)
            for c in range(channels)
        ]
        return functools.reduce(jnp.add, terms)

    # The sums of rows do not wait for one another, so a processor computes several at a time.
    return _fused(functools.reduce(jnp.add, map(sum_of_row, range(rows))))


def _fused(rows: Array) -> Array:
    """Return outputs with the batch as the first dimension.

    Those of few images have no layout constraint, across which XLA does not fuse. On its own, the
    activation of at most 32 images becomes a short loop, which LLVM unrolls and then does not
    vectorize.
    """
    is_short = 1 < rows.shape[3] <= MAX_FUSED_IMAGES
    return rows.transpose(3, 1, 2, 0) if is_short else from_batch_minor(rows)


class _Tiles:
    """Sizes of the tiles of outputs, and of their patches in blocks of TILE x TILE pixels.

    Attributes:
      outputs: numbers of rows and columns of outputs.
      blocks: numbers of rows and columns of blocks in a patch.
      tiles: numbers of rows and columns of tiles; the last tile may exceed the outputs.
      padded_outputs: numbers of rows and columns of outputs in whole tiles.
      padded_images: height and width of the images that whole tiles depend on, in whole blocks.
      missing: padding of the images up to `padded_images`, as (low, high) pairs.
    """

    def __init__(self, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
        (_, *sizes, _), (*kernel_sizes, _, _) = image_shape, kernel_shape
        self.outputs = tuple(n - k + 1 for n, k in zip(sizes, kernel_sizes, strict=True))
        self.tiles = tuple(-(-n // TILE) for n in self.outputs)
        self.padded_outputs = tuple(TILE * n for n in self.tiles)
        self.blocks = tuple(-(-(TILE + k - 1) // TILE) for k in kernel_sizes)
        self.padded_images = tuple(
            TILE * (n + m - 1) for n, m in zip(self.tiles, self.blocks, strict=True)
        )
        self.missing = tuple((0, n - m) for n, m in zip(self.padded_images, sizes, strict=True))

    def matrices(self, kernel: Array) -> Float[Array, "blocks_down blocks_across tile_features"]:
        """Return the banded matrix of each row of blocks; its transpose maps these to a tile."""
        (down, across), (_, _, channels, features) = self.blocks, kernel.shape
        spare = [TILE * n - k for n, k in zip(self.blocks, kernel.shape[:2], strict=True)]
        shifted = [
            jnp.pad(kernel, ((p, spare[0] - p), (q, spare[1] - q), (0, 0), (0, 0)))
            for p in range(TILE)
            for q in range(TILE)
        ]
        banded = jnp.stack(shifted, axis=3)  # [rows, columns, channels, tile, features]
        banded = banded.reshape(down, TILE, across, TILE, channels, TILE * TILE, features)
        banded = banded.transpose(0, 2, 1, 3, 4, 5, 6)
        # Without the barrier XLA builds the matrices again for each product.
        return lax.optimization_barrier(banded).reshape(down, -1, TILE * TILE * features)
