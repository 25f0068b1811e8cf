"""The multilayer perceptrons and the linear classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import assert_close, random_params

from jaxcnn.models.mlp import MLP

IMAGES = np.random.default_rng(0).uniform(-1, 1, (3, 28, 28, 1)).astype(np.float32)


@pytest.mark.parametrize("hidden", [(), (30,), (30, 20)])
def test_mlp_by_hand(hidden):
    model = MLP(hidden=hidden)
    params = random_params(model, (28, 28, 1))
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    assert list(layers) == ["hidden1", "hidden2"][: len(hidden)] + ["output"]
    *below, output = layers.values()
    x = IMAGES.reshape(3, 784)
    for layer in below:
        x = 1.7159 * np.tanh(2 / 3 * (x @ layer["kernel"] + layer["bias"]))
    expected = x @ output["kernel"] + output["bias"]
    assert_close(model.apply({"params": params}, IMAGES), expected)


def test_mlp_takes_another_activation():
    model = MLP(hidden=(30,), activation=nn.relu)
    params = random_params(model, (28, 28, 1))
    hidden = IMAGES.reshape(3, 784) @ params["hidden1"]["kernel"] + params["hidden1"]["bias"]
    expected = np.maximum(hidden, 0) @ params["output"]["kernel"] + params["output"]["bias"]
    assert_close(model.apply({"params": params}, IMAGES), expected)


@pytest.mark.parametrize(("hidden", "count"), [((), 4_010), ((300,), 123_310)])
def test_mlp_of_deslanted_digits_has_the_parameters_of_the_source(hidden, count):
    init = MLP(hidden=hidden).init
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 20, 20, 1)))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count


def test_mlp_refuses_images_without_a_batch():
    with pytest.raises(
        ValueError, match=r"shape \(28, 28, 1\); expected \[batch, height, width, channels\]"
    ):
        MLP().init(jax.random.key(0), jnp.zeros((28, 28, 1)))


def test_mlp_refuses_raw_pixels():
    with pytest.raises(TypeError, match="images are uint8; expected floating point for MLP"):
        MLP().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1), jnp.uint8))
