"""Convolution of few channels as one matrix product, image by image.

Images are cut into overlapping bands of rows and columns. Each band, flattened, meets a banded
(Toeplitz) matrix made of the kernel, which yields a small tile of outputs at once.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

# Output rows in a tile. Two halve the copies of rows that overlapping bands need, for one sixth
# more multiplications with a 5x5 kernel.
TILE_ROWS = 2
# Values in a flattened band. Fewer make thin products, more make the matrix mostly zeros.
MIN_BAND = 96


def bands(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels features"],
) -> Float[Array, "batch height-kernel_height+1 width-kernel_width+1 features"]:
    """A convolution at stride 1 without padding."""
    batch, height, width, channels = images.shape
    kernel_height, kernel_width, _, features = kernel.shape
    rows_out, columns_out = height - kernel_height + 1, width - kernel_width + 1

    # A band holds the rows that a tile sees, in whole tiles: what it sees too much meets zeros. An
    # odd number of output rows is made even, by rows of zeros whose outputs are dropped.
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
    """Return 1 where output `tile` sees input `band` through tap `kernel_size`, else 0."""
    tap, inner, outer = np.ogrid[:kernel_size, :band, :tile]
    return (inner == outer + tap).astype(dtype)


def _tile_width(columns_out: int, values_per_column: int, kernel_width: int) -> int:
    """The narrowest tile that divides the row and whose band has MIN_BAND values."""
    for width in range(2, columns_out):
        enough = (width + kernel_width - 1) * values_per_column >= MIN_BAND
        if columns_out % width == 0 and enough:
            return width
    return columns_out
