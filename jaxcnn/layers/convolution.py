"""One convolution, two lowerings: XLA's own, and matrix products where XLA's is slow.

On a CPU, XLA's convolution of small images with few channels runs far below the machine's
matrix-product rate, and inside a loop over training steps at less than half of even that. The same
sums as one matrix product: the image is cut into overlapping bands of rows and columns, and each
band, flattened, meets a banded (Toeplitz) matrix made of the kernel, which yields a small tile of
outputs at once. The zeros in that matrix cost fewer multiplications than the product saves.

`nn.Conv(..., conv_general_dilated=conv_general_dilated)` takes it; modules, parameters and
checkpoints do not know. The platform is chosen when the program is lowered: GPU and TPU programs
hold XLA's convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.padding import Pads, resolve_padding

# Output rows in a tile. Two halve the copies of rows that overlapping bands need, for one sixth
# more multiplications with a 5x5 kernel.
TILE_ROWS = 2
# Values in a flattened band. Fewer make thin products, more make the matrix mostly zeros.
MIN_BAND = 96
# Above this many channels in or out, XLA's convolution is near the matrix rate by itself.
MAX_CHANNELS = 32


def conv_general_dilated(
    lhs: Float[Array, "batch *space channels"],
    rhs: Float[Array, "*kernel channels_per_group features"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **kwargs: Any,
) -> Float[Array, "batch *output_space features"]:
    """`jax.lax.conv_general_dilated`, the same arguments and values, in matrix products on a CPU.

    float32 images with a dense kernel at stride 1 and few channels take the products; all else
    takes XLA's convolution everywhere. Both are differentiable in both arrays, as often as wanted.
    An infinity or NaN in the images spreads over the tile of outputs that it meets, where XLA's
    stays within the kernel's reach.
    """

    def xla(lhs: Array, rhs: Array) -> Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            **kwargs,
        )

    output_shape = jax.eval_shape(xla, lhs, rhs).shape  # lax's own errors, if there are any
    ones = (*window_strides, *(lhs_dilation or ()), *(rhs_dilation or ()), feature_group_count)
    if (
        set(ones) != {1}
        or not _is_nhwc(lhs, rhs, dimension_numbers)
        or {lhs.dtype, rhs.dtype} != {jnp.dtype(jnp.float32)}
        or any(value is not None for value in kwargs.values())
        or (not isinstance(padding, str) and np.min(padding) < 0)  # crops
        or 0 in output_shape
    ):
        return xla(lhs, rhs)
    pads = resolve_padding(padding, rhs.shape[:2], input_size=lhs.shape[1:3])
    if output_shape[1:3] != (1, 1) and max(rhs.shape[2:]) > MAX_CHANNELS:
        return xla(lhs, rhs)

    def products(lhs: Array, rhs: Array) -> Array:
        return _products(lhs, rhs, pads)

    return lax.platform_dependent(lhs, rhs, cpu=products, default=xla)


def _is_nhwc(lhs: Array, rhs: Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    names = ("NHWC", "HWIO", "NHWC")
    return lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, names)


def _products(lhs: Array, rhs: Array, pads: Pads) -> Array:
    """A dense convolution of padded images at stride 1."""
    images = jnp.pad(lhs, ((0, 0), *pads, (0, 0)))
    batch, height, width, channels = images.shape
    kernel_height, kernel_width, _, features = rhs.shape
    rows_out, columns_out = height - kernel_height + 1, width - kernel_width + 1
    if rows_out == columns_out == 1:  # the kernel covers the image: a dense layer
        taps = kernel_height * kernel_width * channels
        outputs = images.reshape(batch, taps) @ rhs.reshape(taps, features)
        return outputs.reshape(batch, 1, 1, features)

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
    bands = jnp.stack(
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
        rhs,
        _taps(kernel_height, band_height, TILE_ROWS),
        _taps(kernel_width, band_width, tile_width),
        precision=lax.Precision.HIGHEST,
    )  # [band_height, band_width, channels, TILE_ROWS, tile_width, features]
    tiles = bands @ matrix.reshape(band_size, TILE_ROWS * tile_width * features)
    tiles = tiles.reshape(len(bands), batch, tile_rows, TILE_ROWS, tile_width, features)
    outputs = tiles.transpose(1, 2, 3, 0, 4, 5)
    outputs = outputs.reshape(batch, tile_rows * TILE_ROWS, columns_out, features)
    return outputs[:, :rows_out]


def _taps(kernel_size: int, band: int, tile: int) -> Float[np.ndarray, "kernel_size band tile"]:
    """1 where output `tile` sees input `band` through tap `kernel_size`, else 0."""
    tap, inner, outer = np.ogrid[:kernel_size, :band, :tile]
    return (inner == outer + tap).astype(np.float32)


def _tile_width(columns_out: int, values_per_column: int, kernel_width: int) -> int:
    """The narrowest tile that divides the row and whose band has MIN_BAND values."""
    for width in range(2, columns_out):
        enough = (width + kernel_width - 1) * values_per_column >= MIN_BAND
        if columns_out % width == 0 and enough:
            return width
    return columns_out
