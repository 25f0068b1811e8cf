"""Convolve few channels by one matrix product with a banded (Toeplitz) matrix.

In one dimension, a kernel (k0, k1, k2) yields a tile of two outputs from a band of four pixels:

                            [k0   0]
    [y0 y1] = [x0 x1 x2 x3] [k1  k0]
                            [k2  k1]
                            [ 0  k2]

The next tile needs the band (x2, x3, x4, x5), so neighbouring bands overlap. In two dimensions a
tile is a part of a row of outputs, and a band holds the columns of all rows that the kernel covers.
The zeros of the matrix cost less time than a larger product and fewer copies save.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Outputs of a tile: 2 columns of at least MIN_TILE_FEATURES features, or 4 columns. With fewer the
# products are thin, and with more the matrix is mostly zeros.
MIN_TILE_FEATURES = 8


def bands(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
) -> Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"]:
    """Convolve images with a kernel at stride 1 without padding.

    Args:
      images: padded images.
      kernel: kernel of one group.
    """
    batch, height, width, channels = images.shape
    kernel_height, kernel_width, _, features = kernel.shape
    rows, columns = height - kernel_height + 1, width - kernel_width + 1

    # The width of a band is a multiple of the tile's. The matrix is zero at pixels that no output
    # of the tile depends on. Columns of zeros fill up the last tile; its surplus outputs are
    # dropped.
    tile = 2 if features >= MIN_TILE_FEATURES else 4
    tiles = -(-columns // tile)
    steps = -(-(tile + kernel_width - 1) // tile)
    padded_width = (tiles + steps - 1) * tile
    images = jnp.pad(images, ((0, 0), (0, 0), (0, padded_width - width), (0, 0)))
    strips = jnp.concatenate([images[:, y : y + rows] for y in range(kernel_height)], axis=-1)
    strips = strips.reshape(batch, rows, padded_width // tile, tile * kernel_height * channels)
    flat = jnp.concatenate([strips[:, :, s : s + tiles] for s in range(steps)], axis=-1)

    matrix = jnp.einsum(
        "yxco,xbq->bycqo",
        kernel,
        taps(kernel_width, steps * tile, tile, kernel.dtype),
        precision=lax.Precision.HIGHEST,
    )  # [band width, kernel_height, channels, tile, features]
    outputs = flat @ matrix.reshape(flat.shape[-1], tile * features)
    return outputs.reshape(batch, rows, tiles * tile, features)[:, :, :columns]


def taps(
    kernel_size: int, band: int, tile: int, dtype: np.dtype
) -> Float[np.ndarray, "kernel_size band tile"]:
    """Return the banded matrix of each tap: 1 where pixel = output + tap, 0 elsewhere.

    Args:
      kernel_size: number of taps.
      band: number of pixels in a band.
      tile: number of outputs in a tile.
      dtype: dtype of the matrices.
    """
    tap, inner, outer = np.ogrid[:kernel_size, :band, :tile]
    return (inner == outer + tap).astype(dtype)
