"""cuda-convnet's networks; `test_alexnet.py` compares their logits with PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import assert_close, layer_shapes, random_params

from jaxcnn.models.variants import CHOICES, constructor, image_shape


def images(name):
    values = np.random.default_rng(0).uniform(-1, 1, (2, *image_shape(name)))
    return jnp.asarray(values, jnp.float32)


def test_cuda_convnet_has_the_shapes_of_the_source():
    three = dict(conv1=(32, 32, 32), conv2=(16, 16, 32), conv3=(8, 8, 64))
    assert layer_shapes("cuda-convnet-26pct") == three | dict(fc64=(64,), fc10=(10,))
    for name in ("cuda-convnet-19pct", "cuda-convnet-18pct"):
        assert layer_shapes(name) == three | dict(fc10=(10,))
    assert layer_shapes("cuda-convnet-13pct") == dict(
        conv1=(24, 24, 64), conv2=(12, 12, 64), local3=(6, 6, 32), local4=(6, 6, 32), fc10=(10,)
    )
    assert layer_shapes("cuda-convnet-11pct") == dict(
        conv1=(24, 24, 64), conv2=(12, 12, 64), local3=(6, 6, 64), local4=(6, 6, 32), fc10=(10,)
    )


@pytest.mark.parametrize("pool", CHOICES["pool"])
@pytest.mark.parametrize("name", ["cuda-convnet-19pct", "cuda-convnet-13pct"])
def test_cuda_convnet_has_the_same_parameters_with_every_pool(name, pool):
    with_pool, usual = (
        jax.eval_shape(constructor(each)().init, jax.random.key(0), images(name))
        for each in (f"{name}:pool={pool}", name)
    )
    assert with_pool == usual


@pytest.mark.parametrize(
    "name", ["cuda-convnet-26pct", pytest.param("cuda-convnet-13pct", marks=pytest.mark.slow)]
)
def test_cuda_convnet_takes_another_pool_and_activation(name):
    model = constructor(f"{name}:pool=average,activation=tanh")()
    params, x = random_params(model, image_shape(name)), images(name)

    def layer(module, name, x):
        return module.apply({"params": params[name]}, x)

    def pool(x):
        return nn.avg_pool(x, (2, 2), (2, 2))

    def dense(name, features, x):
        return layer(nn.Dense(features), name, x.reshape(2, -1))

    @jax.jit
    def three_convolutions(x):
        x = jnp.tanh(pool(layer(nn.Conv(32, (5, 5), padding=2), "conv1", x)))
        x = pool(jnp.tanh(layer(nn.Conv(32, (5, 5), padding=2), "conv2", x)))
        x = pool(jnp.tanh(layer(nn.Conv(64, (5, 5), padding=2), "conv3", x)))
        return dense("fc10", 10, jnp.tanh(dense("fc64", 64, x)))

    @jax.jit
    def two_convolutions(x):
        for name in ("conv1", "conv2"):
            x = pool(jnp.tanh(layer(nn.Conv(64, (5, 5), padding=2), name, x)))
        for name in ("local3", "local4"):
            x = jnp.tanh(layer(nn.ConvLocal(32, (3, 3), padding=1), name, x))
        return dense("fc10", 10, x)

    by_hand = three_convolutions if name == "cuda-convnet-26pct" else two_convolutions
    assert_close(jax.jit(model.apply)({"params": params}, x), by_hand(x), 1e-4)


def test_cuda_convnet_drops_units_of_local4_in_training_only():
    name = "cuda-convnet-13pct"
    plain, model = constructor(name)(), constructor(f"{name}:dropout=0.5")()
    params, x = random_params(plain, image_shape(name)), images(name)
    params = {layer: params[layer] for layer in params if layer != "fc10"}
    params["fc10"] = {"kernel": jnp.ones((1152, 10)), "bias": jnp.zeros(10)}
    outputs, layers = plain.apply({"params": params}, x, capture_intermediates=True)
    np.testing.assert_array_equal(model.apply({"params": params}, x), outputs)
    units = nn.relu(layers["intermediates"]["local4"]["__call__"][0]).reshape(2, -1)
    key = jax.random.key(0)
    dropped, layers = model.apply(
        {"params": params}, x, train=True, rngs={"dropout": key}, capture_intermediates=True
    )
    [kept] = layers["intermediates"]["Dropout_0"]["__call__"]
    assert_close(kept[kept > 0], 2 * units[kept > 0], 1e-6)
    assert 0.4 < float((kept > 0).sum() / (units > 0).sum()) < 0.6
    assert_close(dropped[:, 0], kept.sum(1), 1e-5)


@pytest.mark.parametrize(
    "name", [pytest.param("cuda-convnet-26pct", marks=pytest.mark.slow), "cuda-convnet-13pct"]
)
def test_cuda_convnet_takes_initial_values_by_fan_in(name):
    model = constructor(f"{name}:initial=lecun-uniform")()
    params = jax.jit(model.init)(jax.random.key(0), images(name))["params"]
    for layer, values in params.items():
        shape = values["kernel"].shape
        fan_in = shape[-2] if "local" in layer else np.prod(shape[:-1])
        assert float(values["kernel"].std()) == pytest.approx(fan_in**-0.5, rel=0.05)
        assert 0 < float(jnp.abs(values["bias"]).max()) <= (3 / fan_in) ** 0.5
