import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn.distributed import mesh
from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.cpu_convolution import batch_minor
from jaxcnn.models import MODELS
from jaxcnn.training.step import create_state, train_step

xla = functools.partial(
    lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="VALID",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_worked_example_of_blocks():
    tiles = batch_minor._Tiles((1, 4, 5, 1), (3, 3, 1, 1))
    assert (tiles.outputs, tiles.tiles, tiles.padded_images) == ((2, 3), (1, 2), (4, 6))
    corner = np.zeros((3, 3, 1, 1), np.float32)
    corner[0, 0] = 1  # the outputs of a tile are the pixels of its top left block
    above, below = tiles.matrices(jnp.asarray(corner))
    np.testing.assert_array_equal(above, np.vstack([np.eye(4), np.zeros((4, 4))]))
    np.testing.assert_array_equal(below, np.zeros((8, 4)))
    above, below = tiles.matrices(jnp.asarray(corner[::-1, ::-1]))  # of the bottom right one
    np.testing.assert_array_equal(above, np.zeros((8, 4)))
    np.testing.assert_array_equal(below, np.vstack([np.zeros((4, 4)), np.eye(4)]))


def test_to_batch_minor_and_back():
    images = normal(3, 4, 5, 2)
    rows = batch_minor.to_batch_minor(jnp.asarray(images))
    np.testing.assert_array_equal(rows, images.transpose(3, 1, 2, 0))
    np.testing.assert_array_equal(batch_minor.from_batch_minor(rows), images)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_agrees_with_xla(data):
    batch, channels, features = (data.draw(st.integers(1, 7)) for _ in range(3))
    taps = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    height, width = (data.draw(st.integers(k, k + 6)) for k in taps)
    images, kernel = normal(batch, height, width, channels), normal(*taps, channels, features)
    shape = jax.eval_shape(xla, images, kernel).shape
    arguments = images, kernel, normal(*shape, seed=1)

    def ours(images, kernel, cotangents):
        outputs = batch_minor.convolve(images, kernel)
        return outputs, batch_minor.images_gradient(cotangents, kernel, images.shape)

    def theirs(images, kernel, cotangents):
        outputs, pullback = jax.vjp(lambda images: xla(images, kernel), images)
        return outputs, *pullback(cotangents)

    actual, expected = jax.jit(ours)(*arguments), jax.jit(theirs)(*arguments)
    jax.tree.map(assert_close, actual, expected)


@pytest.mark.parametrize("taps", [(3, 3), (5, 4)])  # explicit sum, and from patches
def test_many_kernels_by_vmap(taps):
    images, kernels = normal(4, 8, 9, 2), normal(3, *taps, 2, 5)
    actual = jax.jit(jax.vmap(batch_minor.convolve, (None, 0)))(images, kernels)
    assert_close(actual, jax.vmap(xla, (None, 0))(images, kernels))


def test_outside_a_program_parameters_may_be_on_more_devices_than_images():
    images, kernel = jnp.asarray(normal(16, 8, 9, 2)), normal(3, 3, 2, 5)
    everywhere = jax.device_put(kernel, mesh.replicated(mesh.device_mesh()))
    assert len(everywhere.devices()) == 2

    def total(kernel):
        outputs = conv_general_dilated(
            images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return (outputs**2).sum()

    expected = jax.grad(lambda kernel: (xla(images, kernel) ** 2).sum())(kernel)
    assert_close(jax.grad(total)(everywhere), expected)


def test_activations_keep_the_batch_minor_layout():
    model = MODELS["lenet5"]()
    tx, shape = optax.sgd(0.1), (28, 28, 1)
    state = jax.eval_shape(functools.partial(create_state, model, tx, shape), jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((32, *shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((32,), jnp.int32),
    }
    program = jax.jit(train_step).lower(state, batch, jax.random.key(0)).compile().as_text()
    fusions = re.findall(r"= f32(\[32,\d+,\d+,\d+\]\{[\d,]+\}) fusion", program)
    assert {"[32,28,28,6]{0,2,1,3}", "[32,14,14,6]{0,2,1,3}"} <= set(fusions)  # C1 and S2
    # No sum of a gradient rearranges it.
    assert not {"[32,28,28,6]{3,2,1,0}", "[32,10,10,16]{3,2,1,0}"} & set(fusions)
    assert not re.search(r"= f32\[(6,28,28|16,10,10),32\]\{0[\d,]+\} fusion", program)


@pytest.mark.parametrize("taps", [3, 5])  # explicit sum, and from patches
def test_result_of_a_program_is_read_as_it_is_by_later_operations(taps):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(16, 8, 9, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(taps, taps, 3, 4)), jnp.float32)
    outputs = jax.jit(batch_minor.convolve)(images, kernel)
    np.testing.assert_array_equal(outputs + 1, np.asarray(outputs) + 1)
    stored = jax.jit(batch_minor.store_batch_minor)(images)
    np.testing.assert_array_equal(stored + 1, np.asarray(images) + 1)
