import chex
import jax
import numpy as np
import pytest
from jax import lax

from jaxcnn.layers.cpu_convolution.bands import bands, taps


def test_worked_example_of_one_dimension():
    k0, k1, k2 = kernel = np.array([2.0, 3.0, 5.0])
    matrix = np.einsum("y,yar->ar", kernel, taps(3, band=4, tile=2, dtype=np.float64))
    np.testing.assert_array_equal(matrix, [[k0, 0], [k1, k0], [k2, k1], [0, k2]])
    x = np.array([1.0, 10.0, 100.0, 1000.0])
    np.testing.assert_array_equal(x @ matrix, np.correlate(x, kernel))


@pytest.mark.parametrize("features", [1, 7, 8])  # tiles of four columns, and of two
@pytest.mark.parametrize("width", [4, 5, 6, 7, 8, 9])  # 1 to 6 columns of outputs
@pytest.mark.parametrize("kernel_width", [1, 4])
def test_bands_agrees_with_xla(width, kernel_width, features):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 6, width, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, kernel_width, 2, features)).astype(np.float32)
    expected = lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    chex.assert_trees_all_close(jax.jit(bands)(images, kernel), expected, atol=1e-5)
