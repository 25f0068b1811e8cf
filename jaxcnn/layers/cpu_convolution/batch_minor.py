"""Convolve few channels with the batch as the minor dimension: [channels, height, width, batch].

A row of such an array holds one pixel of one channel for all images. An output tile of 2x2 depends
on a patch of the image. The patches are gathered one position at a time: first the top left pixel
of every patch, then the pixel to its right. So each gather copies whole rows. `patch_rows` lists
the rows in that order.

A 4x4 image and a 3x3 kernel have 2x2 outputs: one tile, whose patch is the whole image, rows 0 to
15. A 4x6 image has two tiles. Their patches are two columns apart:

     0  1  2  3        2  3  4  5
     6  7  8  9        8  9 10 11
    12 13 14 15       14 15 16 17
    18 19 20 21       20 21 22 23

    patch_rows = 0 2, 1 3, 2 4, 3 5, 6 8, 7 9, ..., 20 22, 21 23

The gathered patches are multiplied by a banded matrix of the kernel, as in `bands.py`. If an
output is a sum of at most MAX_STENCIL_TAPS products, these are written out instead, as a sum of
shifted images (`_stencil`).

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
from jaxtyping import Array, Float, Int

from jaxcnn.layers.cpu_convolution.bands import taps

TILE = 2  # rows and columns of outputs in a tile

# Largest number of products in an output, kernel height x width x channels, that is written out.
MAX_STENCIL_TAPS = 32


def to_batch_minor(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "channels height width batch"]:
    """Return the images with the batch as the last dimension, stored in that order."""
    images = with_layout_constraint(images, Layout((3, 1, 2, 0)))
    # Without the barrier XLA computes the images again for each operation that reads them.
    rows = lax.optimization_barrier(images.transpose(3, 1, 2, 0))
    # The second constraint is needed because XLA may choose another layout after a barrier.
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
    return from_batch_minor(to_batch_minor(images))


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
    patches = _take(rows.reshape(-1, len(images)), geometry.patch_rows())
    outputs = geometry.matrix(kernel) @ patches.reshape(geometry.patch_size, -1)
    outputs = outputs.reshape(TILE, TILE, -1, *geometry.tiles, len(images))
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)
    outputs = outputs.reshape(-1, *geometry.padded_outputs, len(images))
    height, width = geometry.outputs
    return from_batch_minor(outputs[:, :height, :width])


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
    rows = jnp.pad(to_batch_minor(gradient), ((0, 0), *missing, (0, 0)))
    tiles = rows.reshape(-1, geometry.tiles[0], TILE, geometry.tiles[1], TILE, batch)
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5).reshape(TILE * TILE * len(rows), -1)
    patches = (geometry.matrix(kernel).T @ tiles).reshape(-1, batch)
    terms = [
        _take(patches, rows) * inside.astype(patches.dtype)
        for rows, inside in geometry.image_rows()
    ]
    total = functools.reduce(jnp.add, terms).reshape(channels, *geometry.padded_images, batch)
    return from_batch_minor(total[:, :height, :width])


def _stencil(images: Array, kernel: Array) -> Array:
    rows, columns, channels, _ = kernel.shape
    pixels = to_batch_minor(images)
    height, width = pixels.shape[1] - rows + 1, pixels.shape[2] - columns + 1
    terms = [
        pixels[c, None, a : a + height, b : b + width] * kernel[a, b, c, :, None, None, None]
        for a in range(rows)
        for b in range(columns)
        for c in range(channels)
    ]
    return from_batch_minor(functools.reduce(jnp.add, terms))


class _Tiles:
    """Sizes and indices of the tiles of outputs and of their patches.

    Attributes:
      outputs: numbers of rows and columns of outputs.
      tiles: numbers of rows and columns of tiles; the last tile may exceed the outputs.
      padded_outputs: numbers of rows and columns of outputs in whole tiles.
      padded_images: height and width of the images that whole tiles depend on.
      missing: padding of the images up to `padded_images`, as (low, high) pairs.
      patch_size: number of values in a patch.
    """

    def __init__(self, image_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
        (_, *sizes, channels), (*kernel_sizes, _, _) = image_shape, kernel_shape
        self.outputs = tuple(n - k + 1 for n, k in zip(sizes, kernel_sizes, strict=True))
        self.tiles = tuple(-(-n // TILE) for n in self.outputs)
        self.padded_outputs = tuple(TILE * n for n in self.tiles)
        self.padded_images = tuple(
            n + k - 1 for n, k in zip(self.padded_outputs, kernel_sizes, strict=True)
        )
        self.missing = tuple((0, n - m) for n, m in zip(self.padded_images, sizes, strict=True))
        self._patch = tuple(TILE + k - 1 for k in kernel_sizes)
        self._channels = channels
        self.patch_size = self._patch[0] * self._patch[1] * channels

    def matrix(self, kernel: Array) -> Array:
        """Return the banded matrix that maps a patch to a tile of all features."""
        banded_taps = [
            taps(k, n, TILE, kernel.dtype)
            for k, n in zip(kernel.shape[:2], self._patch, strict=True)
        ]
        banded = jnp.einsum(
            "yxco,yap,xbq->pqoabc", kernel, *banded_taps, precision=lax.Precision.HIGHEST
        )
        return banded.reshape(-1, self.patch_size)

    def patch_rows(self) -> Int[np.ndarray, " patch_size*tiles"]:
        """Return the row of the images, counted as [channel, y, x], of each row of the patches."""
        patch, tiles = self._patch, self.tiles
        a, b, c, y, x = np.ogrid[: patch[0], : patch[1], : self._channels, : tiles[0], : tiles[1]]
        height, width = self.padded_images
        rows = (c * height + TILE * y + a) * width + TILE * x + b
        return rows.ravel().astype(np.int32)

    def image_rows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the rows of the patches that hold each row of the images.

        Returns:
          One pair for each tile position within a patch: the row of the patches for each row of the
          images, and whether such a row exists. Near a border some do not.
        """
        (patch_height, patch_width), (tall, wide) = self._patch, self.tiles
        c, y, x = np.ogrid[: self._channels, : self.padded_images[0], : self.padded_images[1]]
        found = []
        for down in range(0, patch_height, TILE):
            for right in range(0, patch_width, TILE):
                a, b = down + y % TILE, right + x % TILE
                tile_y, tile_x = y // TILE - down // TILE, x // TILE - right // TILE
                inside = (a < patch_height) & (0 <= tile_y) & (tile_y < tall) & (c >= 0)
                inside = inside & (b < patch_width) & (0 <= tile_x) & (tile_x < wide)
                number = (a * patch_width + b) * self._channels + c
                rows = np.where(inside, (number * tall + tile_y) * wide + tile_x, 0)
                found.append((rows.ravel().astype(np.int32), inside.reshape(-1, 1)))
        return found


def _take(array: Array, rows: np.ndarray) -> Array:
    return array.at[rows].get(mode="promise_in_bounds")
