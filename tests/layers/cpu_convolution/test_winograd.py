import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxcnn.layers.cpu_convolution import winograd as module
from jaxcnn.layers.cpu_convolution.winograd import (
    POINTS,
    TILE,
    _matrices,
    winograd,
    winograd_kernel_gradient,
)


def exact(images, kernel):
    """Convolve in float64, as sums over the positions of the kernel."""
    taps = len(kernel)
    rows, columns = images.shape[1] - taps + 1, images.shape[2] - taps + 1
    return sum(
        images[:, a : a + rows, b : b + columns].astype(np.float64) @ kernel[a, b]
        for a in range(taps)
        for b in range(taps)
    )


ONE_BY_DEFAULT = 3, pytest.param(5, marks=pytest.mark.slow)


def random_arrays(taps, height, width, channels=40, features=24, batch=3):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch, height, width, channels)).astype(np.float32)
    return images, rng.standard_normal((taps, taps, channels, features)).astype(np.float32)


@pytest.mark.parametrize("taps", POINTS)
def test_a_row_takes_as_many_products_as_points(taps):
    for_outputs, for_kernel, for_images = (m.astype(np.float64) for m in _matrices(taps))
    pixels, kernel = np.arange(1.0, taps + 2) ** 2, np.arange(2.0, taps + 2)
    products = (for_kernel @ kernel) * (for_images @ pixels)
    assert len(products) == taps + 1
    expected = [pixels[i : i + taps] @ kernel for i in range(TILE)]
    np.testing.assert_allclose(for_outputs @ products, expected, rtol=1e-6)


@pytest.mark.parametrize(("taps", "tolerance"), [(3, 1e-6), (5, 1e-5)])
@pytest.mark.parametrize("size", [(8, 8), (9, 8), (5, 7), (13, 13)])
@pytest.mark.parametrize("is_reversed", [False, True])  # transformed by sums, and by a product
def test_it_is_the_convolution(taps, tolerance, size, is_reversed):
    images, kernel = random_arrays(taps, *size)
    expected = exact(images, kernel)
    convolve = functools.partial(winograd, is_reversed=is_reversed)
    actual = jax.jit(convolve)(images, kernel)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("taps", ONE_BY_DEFAULT)
def test_its_gradients_are_the_convolutions(taps):
    images, kernel = random_arrays(taps, 7, 8)
    usual = lambda x, k: lax.conv_general_dilated(  # noqa: E731
        x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    outputs, pullback = jax.vjp(winograd, images, kernel)
    weights = jnp.sin(jnp.arange(outputs.size, dtype=jnp.float32)).reshape(outputs.shape)
    _, usual_pullback = jax.vjp(usual, images, kernel)
    of_images, of_kernel = usual_pullback(weights)
    gradients = *pullback(weights), winograd_kernel_gradient(images, weights, kernel.shape)
    for actual, expected in zip(gradients, (of_images, of_kernel, of_kernel), strict=True):
        assert np.abs(actual - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("taps", ONE_BY_DEFAULT)
def test_microbatches_give_the_same_in_less_memory(taps, monkeypatch):
    images, kernel = random_arrays(taps, 20, 21, batch=19)
    gradient = np.cos(np.arange(19 * (21 - taps) * (22 - taps) * 24, dtype=np.float32))
    gradient = gradient.reshape(19, 21 - taps, 22 - taps, 24)

    def both(images, kernel, gradient):
        of_kernel = winograd_kernel_gradient(images, gradient, kernel.shape)
        return winograd(images, kernel), of_kernel

    whole = jax.jit(both).lower(images, kernel, gradient).compile()
    monkeypatch.setattr(module, "MAX_BYTES", 1_500_000)
    split = jax.jit(lambda *arrays: both(*arrays)).lower(images, kernel, gradient).compile()
    size = module._microbatch_size(images, kernel.shape)
    assert 1 < size < 19  # a prime number of images; the last microbatch is filled up with zeros
    arrays = images, kernel, gradient
    for actual, expected in zip(split(*arrays), whole(*arrays), strict=True):
        assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    memory = [program.memory_analysis().temp_size_in_bytes for program in (split, whole)]
    assert memory[0] < 0.7 * memory[1]


@pytest.mark.parametrize(
    ("num_images", "kernel_shape", "size"),
    [
        (64, (5, 5, 64, 192), 4),  # 4 of 31x31 images need 29 MiB; AlexNet's conv2
        (65, (5, 5, 64, 192), 3),  # the last one has 2 images, of 4 it would have 1
        (3, (5, 5, 64, 192), 3),
        (64, (3, 3, 48, 64), 16),
    ],
)
def test_microbatches_are_the_largest_that_are_full(num_images, kernel_shape, size):
    images = jax.ShapeDtypeStruct((num_images, 31, 31, kernel_shape[2]), np.float32)
    assert module._microbatch_size(images, kernel_shape) == size
