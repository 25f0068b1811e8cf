import jax
import numpy as np
import pytest

from jaxcnn.layers.cpu_convolution.kernel_gradient import (
    GRADIENT_IMAGES,
    MAX_GRADIENT_CHANNELS,
    MAX_PHASED_FEATURES,
    kernel_gradient_by_products,
)


def by_index_equation(images, outputs):
    """Sum images[n, y + a, x + b, c] outputs[n, y, x, o] over n, y and x, in float64."""
    (_, height, width, _), (_, rows, columns, _) = images.shape, outputs.shape
    kernel_size = height - rows + 1, width - columns + 1
    gradient = np.zeros((*kernel_size, images.shape[3], outputs.shape[3]))
    for a, b in np.ndindex(kernel_size):
        shifted = images[:, a : a + rows, b : b + columns].astype(np.float64)
        gradient[a, b] = np.einsum("nyxc,nyxo->co", shifted, outputs)
    return gradient


def test_worked_example_of_one_dimension():
    images = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 4, 1)
    outputs = np.array([1, 10], np.float32).reshape(1, 1, 2, 1)
    gradient = kernel_gradient_by_products(images, outputs)
    np.testing.assert_array_equal(gradient.ravel(), [21, 32, 43])
    np.testing.assert_array_equal(by_index_equation(images, outputs), gradient)


MANY = MAX_GRADIENT_CHANNELS + 1


@pytest.mark.parametrize("batch", [GRADIENT_IMAGES - 1, GRADIENT_IMAGES, GRADIENT_IMAGES + 1])
@pytest.mark.parametrize("rows", [5, 6])  # an even number is split into pairs
@pytest.mark.parametrize(
    ("channels", "features"),
    [(2, MAX_PHASED_FEATURES), (2, MAX_PHASED_FEATURES + 1), (MANY, 3), (3, MANY)],
)
def test_gradient_is_the_index_equation(batch, rows, channels, features):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, rows + 3, 9, channels)).astype(np.float32)
    outputs = rng.normal(size=(batch, rows, 7, features)).astype(np.float32)
    expected = by_index_equation(images, outputs)
    actual = jax.jit(kernel_gradient_by_products)(images, outputs)
    assert actual.shape == (4, 3, channels, features)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_gradient_keeps_the_copy_of_one_row_at_a_time():
    shape = jax.ShapeDtypeStruct
    images = shape((8, 24, 24, MANY), np.float32)
    outputs = shape((8, 20, 20, MANY), np.float32)
    program = jax.jit(kernel_gradient_by_products).lower(images, outputs).compile()
    shifted_bytes = 4 * 8 * 24 * 20 * 5 * MANY  # of the images, shifted by each of 5 columns
    assert program.memory_analysis().temp_size_in_bytes < 3 * shifted_bytes
