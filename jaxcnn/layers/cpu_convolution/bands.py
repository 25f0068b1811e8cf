"""Convolve few channels by one matrix product with a banded (Toeplitz) matrix.

In one dimension, a kernel (k0, k1, k2) yields a tile of two outputs from a band of four pixels:

                            [k0   0]
    [y0 y1] = [x0 x1 x2 x3] [k1  k0]
                            [k2  k1]
                            [ 0  k2]

The next tile needs the band (x2, x3, x4, x5), so neighbouring bands overlap. In two dimensions a
band is a block of rows and columns, flattened, and a tile is a block of outputs. The zeros of the
matrix cost less time than the larger product saves.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Output rows in a tile. Two rows halve the copies that overlapping bands need and cost one sixth
# more multiplications with a 5x5 kernel.
TILE_ROWS = 2
# Least number of values in a flattened band. With fewer values the products are thin. With many
# more values the matrix is mostly zeros.
MIN_BAND = 96


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
    rows_out, columns_out = height - kernel_height + 1, width - kernel_width + 1

    # The height of a band is a multiple of TILE_ROWS. The matrix is zero at rows that no output of
    # the tile depends on. If the number of output rows is odd, rows of zeros are appended to the
    # images and the surplus outputs are dropped.
    tile_rows = -(-rows_out // TILE_ROWS)
    groups = -(-(TILE_ROWS + kernel_height - 1) // TILE_ROWS)
    band_height = groups * TILE_ROWS
    tile_width = _tile_width(columns_out, band_height * channels, kernel_width)
    band_width = tile_width + kernel_width - 1
    band_size = band_height * band_width * channels

    padded_height = (tile_rows + groups - 1) * TILE_ROWS
    images = jnp.pad(images, ((0, 0), (0, padded_height - height), (0, 0), (0, 0)))
    by_rows = images.reshape(batch, padded_height // TILE_ROWS, TILE_ROWS, width, channels)
    flat = jnp.stack(
        [
            jnp.concatenate(
                [
                    by_rows[:, group : group + tile_rows, :, first : first + band_width].reshape(
                        batch, tile_rows, band_size // groups
                    )
                    for group in range(groups)
                ],
                axis=-1,
            )
            for first in range(0, columns_out, tile_width)
        ]
    )  # [columns / tile_width, batch, rows / TILE_ROWS, band_size]

    matrix = jnp.einsum(
        "yxco,yar,xbq->abcrqo",
        kernel,
        taps(kernel_height, band_height, TILE_ROWS, kernel.dtype),
        taps(kernel_width, band_width, tile_width, kernel.dtype),
        precision=lax.Precision.HIGHEST,
    )  # [band_height, band_width, channels, TILE_ROWS, tile_width, features]
    tiles = flat @ matrix.reshape(band_size, TILE_ROWS * tile_width * features)
    tiles = tiles.reshape(len(flat), batch, tile_rows, TILE_ROWS, tile_width, features)
    outputs = tiles.transpose(1, 2, 3, 0, 4, 5)
    outputs = outputs.reshape(batch, tile_rows * TILE_ROWS, columns_out, features)
    return outputs[:, :rows_out]


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


def _tile_width(columns_out: int, values_per_column: int, kernel_width: int) -> int:
    """Return the width of the narrowest tile that divides the row and fills MIN_BAND.

    If no such tile exists, the tile is the whole row.
    """
    for width in range(2, columns_out):
        enough = (width + kernel_width - 1) * values_per_column >= MIN_BAND
        if columns_out % width == 0 and enough:
            return width
    return columns_out
