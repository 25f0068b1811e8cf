"""Subsampling without pools, with larger windows, and with a blur."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.pooling import max_pool
from jaxcnn.layers.subsampling import (
    max_blur_pool,
    overlapping_avg_pool,
    overlapping_max_pool,
    subsample,
)

X = jax.random.normal(jax.random.key(0), (2, 10, 8, 3))


@pytest.mark.parametrize(
    "function", [subsample, overlapping_max_pool, overlapping_avg_pool, max_blur_pool]
)
def test_subsampling_has_the_size_of_a_pool_and_a_gradient(function):
    expected = max_pool(X, (2, 2)).shape
    chex.assert_shape(function(X, (2, 2)), expected)
    of_image = jax.eval_shape(lambda x: function(x, (2, 2)), X[0])  # without a batch
    chex.assert_shape(of_image, expected[1:])
    chex.assert_trees_all_close(
        jax.jit(function, static_argnums=1)(X, (2, 2)), function(X, (2, 2)), rtol=1e-6
    )
    grad = jax.jit(jax.grad(lambda x: jnp.sin(function(x, (2, 2))).sum()))(X)
    assert np.isfinite(grad).all() and np.abs(grad).sum() > 0


def test_subsample_after_a_convolution_is_its_stride():
    kernel = jax.random.normal(jax.random.key(1), (5, 5, 3, 4))

    def conv(strides):
        axes = ("NHWC", "HWIO", "NHWC")
        return conv_general_dilated(X, kernel, strides, "VALID", dimension_numbers=axes)

    chex.assert_trees_all_close(subsample(conv((1, 1)), (2, 2)), conv((2, 2)), atol=1e-5)


def test_overlapping_max_pool_by_hand():
    x = jnp.arange(16.0).reshape(4, 4, 1)
    assert overlapping_max_pool(x, (2, 2))[..., 0].tolist() == [[10, 11], [14, 15]]
    assert overlapping_max_pool(-x, (2, 2))[..., 0].tolist() == [[0, -2], [-8, -10]]


def test_overlapping_avg_pool_by_hand():
    x = jnp.arange(16.0).reshape(4, 4, 1)  # windows of 3x3, 3x2, 2x3 and 2x2
    assert overlapping_avg_pool(x, (2, 2))[..., 0].tolist() == [[5, 6.5], [11, 12.5]]


def test_max_blur_pool_by_hand():
    row = np.array([0.0, 8, 0, 0, 4, 0])
    x = jnp.tile(row[None, :, None], (6, 1, 1))
    maxima = np.array([8, 8, 0, 4, 4])
    reflected = np.array([8, 8, 8, 0, 4, 4, 4])
    assert [max(pair) for pair in zip(row, row[1:], strict=False)] == maxima.tolist()
    blurred = (reflected[:-2] + 2 * reflected[1:-1] + reflected[2:])[::2] / 4
    chex.assert_trees_all_close(max_blur_pool(x, (2, 2))[..., 0], np.tile(blurred, (3, 1)))
