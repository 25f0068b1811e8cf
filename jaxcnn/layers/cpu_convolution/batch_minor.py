"""Convolution of few channels, with the images of a batch side by side in memory.

With few channels a pixel is too short for a processor's vectors. Here the images of a batch lie
next to each other instead, [channels, height, width, batch] (as cuda-convnet kept them on a GPU),
so that every operation runs over whole rows of one number of each image:

- A small kernel over few channels is written out as a sum of shifted images (`_stencil`).
- Else the patches of TILE x TILE neighbouring outputs are gathered, row by row, and meet a banded
  (Toeplitz) matrix made of the kernel. Its zeros cost 1.44 times the multiplications of a 5x5
  kernel; patches of single outputs would be 2.8 times as large to gather.

Arrays stay [batch, height, width, channels] for whoever calls; a constraint tells the compiler how
they lie in memory, and activations and pools between two convolutions take that over. Where it is
not told, it transposes back and forth and gains nothing.

On two cores, LeNet-5's step of 64 images took 4.5 ms in bands (`bands.py`), and takes 2.6. No
faster were patches cut by slices and stacked, which is done on one core; tiles and patches for C1
(460 us, written out 130); and kernels' gradients from the patches (C1 680 us, 560 as in
`convolution.py`; C3 no difference) or as sums of products written out (1 ms).
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

TILE = 2  # outputs of a tile, along each side

# Up to so many products for an output, a kernel is written out.
MAX_STENCIL_TAPS = 32


def side_by_side(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "channels height width batch"]:
    """The images with the batch last, as it lies in memory."""
    images = with_layout_constraint(images, Layout((3, 1, 2, 0)))
    # Or they are computed anew for each of the many that read them.
    rows = lax.optimization_barrier(images.transpose(3, 1, 2, 0))
    # A barrier lets what is behind it lie otherwise.
    return with_layout_constraint(rows, Layout((0, 1, 2, 3)))


def one_by_one(
    rows: Float[Array, "channels height width batch"],
) -> Float[Array, "batch height width channels"]:
    """Return the images, which still lie side by side in memory."""
    images = with_layout_constraint(rows.transpose(3, 1, 2, 0), Layout((3, 1, 2, 0)))
    # JAX misreads the result of a program whose last operation is a layout constraint (see
    # docs/layout_constraint.md). XLA removes this multiplication, but only after it has decided
    # how results lie in memory.
    return images * np.ones((), images.dtype)


def lay_side_by_side(
    images: Float[Array, "batch height width channels"],
) -> Float[Array, "batch height width channels"]:
    """The same images, side by side in memory."""
    return one_by_one(side_by_side(images))


def convolve(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
) -> Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"]:
    """A convolution at stride 1 without padding."""
    if math.prod(kernel.shape[:3]) <= MAX_STENCIL_TAPS:
        return _stencil(images, kernel)
    geometry = _Tiles(images.shape, kernel.shape)
    rows = side_by_side(jnp.pad(images, ((0, 0), *geometry.missing, (0, 0))))
    patches = _take(rows.reshape(-1, len(images)), geometry.patch_rows())
    outputs = geometry.matrix(kernel) @ patches.reshape(geometry.patch_size, -1)
    outputs = outputs.reshape(TILE, TILE, -1, *geometry.tiles, len(images))
    outputs = outputs.transpose(2, 3, 0, 4, 1, 5)
    outputs = outputs.reshape(-1, *geometry.padded_outputs, len(images))
    height, width = geometry.outputs
    return one_by_one(outputs[:, :height, :width])


def images_gradient(
    gradient: Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
    image_shape: tuple[int, ...],
) -> Float[Array, "batch height width channels"]:
    """What `convolve` sends back to its images; `gradient` is that of its outputs."""
    batch, height, width, channels = image_shape
    geometry = _Tiles(image_shape, kernel.shape)
    missing = [(0, n - m) for n, m in zip(geometry.padded_outputs, geometry.outputs, strict=True)]
    rows = jnp.pad(side_by_side(gradient), ((0, 0), *missing, (0, 0)))
    tiles = rows.reshape(-1, geometry.tiles[0], TILE, geometry.tiles[1], TILE, batch)
    tiles = tiles.transpose(2, 4, 0, 1, 3, 5).reshape(TILE * TILE * len(rows), -1)
    patches = (geometry.matrix(kernel).T @ tiles).reshape(-1, batch)
    parts = [
        _take(patches, rows) * inside.astype(patches.dtype)
        for rows, inside in geometry.image_rows()
    ]
    total = functools.reduce(jnp.add, parts).reshape(channels, *geometry.padded_images, batch)
    return one_by_one(total[:, :height, :width])


def _stencil(images: Array, kernel: Array) -> Array:
    rows, columns, channels, _ = kernel.shape
    pixels = side_by_side(images)
    height, width = pixels.shape[1] - rows + 1, pixels.shape[2] - columns + 1
    terms = [
        pixels[c, None, a : a + height, b : b + width] * kernel[a, b, c, :, None, None, None]
        for a in range(rows)
        for b in range(columns)
        for c in range(channels)
    ]
    return one_by_one(functools.reduce(jnp.add, terms))


class _Tiles:
    """Where tiles of outputs and the patches that they see lie.

    Attributes:
      outputs: rows and columns of outputs.
      tiles: of tiles; the last may reach beyond the outputs.
      padded_outputs: of outputs of whole tiles.
      padded_images: of the images that these see.
      missing: what images lack of that, as `jnp.pad` takes it.
      patch_size: numbers in a patch.
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
        """What takes a patch to a tile: [outputs of a tile and features, patch_size]."""
        of_axes = [
            taps(k, n, TILE, kernel.dtype)
            for k, n in zip(kernel.shape[:2], self._patch, strict=True)
        ]
        banded = jnp.einsum(
            "yxco,yap,xbq->pqoabc", kernel, *of_axes, precision=lax.Precision.HIGHEST
        )
        return banded.reshape(-1, self.patch_size)

    def patch_rows(self) -> Int[np.ndarray, " patch_size*tiles"]:
        """Of all patches, number by number: the row [channel, y, x] of the images it is."""
        patch, tiles = self._patch, self.tiles
        a, b, c, y, x = np.ogrid[: patch[0], : patch[1], : self._channels, : tiles[0], : tiles[1]]
        height, width = self.padded_images
        rows = (c * height + TILE * y + a) * width + TILE * x + b
        return rows.ravel().astype(np.int32)

    def image_rows(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each row of the images the patches' rows that it went to, and 1 where there is one.

        A pixel is in as many patches as there are tiles along a patch, but for those at the border.
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
