import chex
import jax
import numpy as np
import pytest
from jax import lax

from jaxcnn.layers.cpu_convolution.bands import MIN_BAND, _tile_width, bands, taps


def test_worked_example_of_one_dimension():
    k0, k1, k2 = kernel = np.array([2.0, 3.0, 5.0])
    matrix = np.einsum("y,yar->ar", kernel, taps(3, band=4, tile=2, dtype=np.float64))
    np.testing.assert_array_equal(matrix, [[k0, 0], [k1, k0], [k2, k1], [0, k2]])
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    np.testing.assert_array_equal(x @ matrix, np.correlate(x, kernel))


@pytest.mark.parametrize("height", [5, 6, 7])  # 3, 4 and 5 rows of outputs in tiles of 2 rows
def test_bands_agrees_with_xla(height):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, height, 9, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 4, 2, 5)).astype(np.float32)
    expected = lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    chex.assert_trees_all_close(jax.jit(bands)(images, kernel), expected, atol=1e-5)


def test_tile_width_divides_the_row_and_fills_a_band():
    # A 5x5 kernel over 1 channel has bands of 6 rows: 6 * (12 + 4) = MIN_BAND values are enough.
    assert _tile_width(24, values_per_column=6, kernel_width=5) == 12
    assert 6 * (12 + 4) == MIN_BAND
    assert _tile_width(7, values_per_column=6, kernel_width=5) == 7  # a prime: the whole row
