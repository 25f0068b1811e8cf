"""AlexNet and cuda-convnet: shapes, initial values, dropout, and PyTorch's logits."""

from functools import partial

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_networks
from helpers import assert_close, layer_shapes, random_params

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.models.variants import constructor, image_shape

MODELS_HERE = [name for name in MODELS if name.startswith(("alexnet", "cuda-convnet"))]
CONVOLUTIONS = {
    "alexnet": dict(
        conv1=(55, 55, 64), conv2=(27, 27, 192), conv3=(13, 13, 384), conv4=(13, 13, 256)
    ),
    "alexnet-2012": dict(
        conv1=(55, 55, 96), conv2=(27, 27, 256), conv3=(13, 13, 384), conv4=(13, 13, 384)
    ),
}
DRAWN_OF_2012 = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc8"]  # fc6, fc7: too many
BIASED_IN_2012 = ["conv2", "conv4", "conv5", "fc6", "fc7"]
STDS_26PCT = dict(conv1=0.0001, conv2=0.01, conv3=0.01, fc64=0.1, fc10=0.1)
STDS_18PCT = dict(conv1=0.0001, conv2=0.01, conv3=0.01, fc10=0.01)
STDS_11PCT = dict(conv1=0.0001, conv2=0.01, local3=0.04, local4=0.04, fc10=0.01)


def pixels(height, width, scale=1.0):
    values = np.random.default_rng(0).uniform(-scale, scale, (2, height, width, 3))
    return values.astype(np.float32)


def params_like(name):
    model = MODELS[name](num_classes=10)
    images = jnp.zeros((1, *IMAGE_SHAPES[name]))
    return jax.eval_shape(model.init, jax.random.key(0), images)["params"]


def params_of(name):
    return random_params(constructor(name)(num_classes=10), image_shape(name))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_alexnet_has_the_shapes_of_the_source(name):
    first_dropped = 256 * 6 * 6 if name == "alexnet" else 4096  # before fc6, or after it
    assert layer_shapes(name) == CONVOLUTIONS[name] | dict(
        conv5=(13, 13, 256),
        fc6=(4096,),
        fc7=(4096,),
        fc8=(10,),
        Dropout_0=(first_dropped,),
        Dropout_1=(4096,),
    )


def test_alexnet_2012_has_groups_of_two():
    params = params_like("alexnet-2012")
    assert params["conv2"]["kernel"].shape == (5, 5, 48, 256)
    assert params["conv3"]["kernel"].shape == (3, 3, 256, 384)
    assert params["conv4"]["kernel"].shape == (3, 3, 192, 384)
    assert params["conv5"]["kernel"].shape == (3, 3, 192, 256)


@pytest.mark.parametrize(
    "name, reference, images, first_dense",
    [
        pytest.param(
            *("alexnet", torch_networks.alexnet, pixels(224, 224), {"fc6": 6}),
            marks=pytest.mark.slow,
        ),
        pytest.param(  # 3x5 maps to 6x6
            *("alexnet", torch_networks.alexnet, pixels(127, 191), {"fc6": 6}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("alexnet-2012", torch_networks.alexnet_2012, pixels(224, 224, 128), {"fc6": 6}),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            *("alexnet-2012", torch_networks.alexnet_2012, pixels(227, 227, 128), {"fc6": 6}),
            marks=pytest.mark.slow,
        ),
        ("cuda-convnet-26pct", torch_networks.cuda_convnet, pixels(32, 32, 128), {"fc64": 4}),
        pytest.param(
            *("cuda-convnet-19pct", torch_networks.cuda_convnet, pixels(32, 32, 128), {"fc10": 4}),
            marks=pytest.mark.slow,
        ),
        ("cuda-convnet-18pct", torch_networks.cuda_convnet_18pct, pixels(32, 32, 128), {"fc10": 4}),
        pytest.param(
            *("cuda-convnet-13pct", torch_networks.cuda_convnet_local),
            *(pixels(24, 24, 128), {"fc10": 6}),
            marks=pytest.mark.slow,
        ),
        (
            *("cuda-convnet-13pct:lrn_size=5", torch_networks.cuda_convnet_11pct_first),
            *(pixels(24, 24, 128), {"fc10": 6}),
        ),
        pytest.param(
            *("cuda-convnet-11pct", torch_networks.cuda_convnet_11pct),
            *(pixels(24, 24, 128), {"fc10": 6}),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_logits_equal_torch(name, reference, images, first_dense):
    torch = pytest.importorskip("torch")

    def to_torch(layer, kernel):
        if layer in first_dense:  # [height * width * in, out] to [out, in * height * width]
            side, features = first_dense[layer], kernel.shape[-1]
            kernel = kernel.reshape(side, side, -1, features)
            return torch.tensor(kernel.transpose(3, 2, 0, 1).reshape(features, -1))
        if layer.startswith("local"):
            return torch.tensor(kernel)
        return torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))

    params = params_of(name)
    p = {
        layer: (to_torch(layer, params[layer]["kernel"]), torch.tensor(params[layer]["bias"]))
        for layer in params
    }
    expected = reference(torch.nn.functional, p, torch.tensor(np.moveaxis(images, -1, 1))).numpy()
    logits = jax.jit(constructor(name)(num_classes=10).apply)({"params": params}, images)
    assert_close(logits, expected, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_alexnet_drops_out_in_training_only(name):
    model, variables = MODELS[name](num_classes=10), {"params": params_of(name)}

    @jax.jit
    def run(key, variables):
        image, rngs = pixels(224, 224)[:1], {"dropout": key}
        _, state = model.apply(variables, image, train=True, rngs=rngs, capture_intermediates=True)
        outputs = state["intermediates"]
        return {layer: outputs[layer]["__call__"][0] for layer in ("fc6", "Dropout_0", "Dropout_1")}

    layers = run(jax.random.key(0), variables)
    fc6, dropped = layers["fc6"], layers["Dropout_1" if name == "alexnet" else "Dropout_0"]
    kept = (dropped / fc6)[fc6 > 0]
    assert set(np.unique(np.round(kept, 4))) == {0, 2}
    assert 0.45 < (kept > 0).mean() < 0.55
    others = run(jax.random.key(1), variables)
    for layer in ("Dropout_0", "Dropout_1"):
        assert 0.1 < (layers[layer] != others[layer]).mean() < 0.6
    with pytest.raises(flax.errors.InvalidRngError, match="dropout"):
        jax.eval_shape(lambda v: model.apply(v, pixels(224, 224), train=True), variables)


@pytest.mark.parametrize(
    "name, fields, stds, biases",
    [
        (
            "alexnet-2012",
            {},
            dict.fromkeys(DRAWN_OF_2012, 0.01),
            dict.fromkeys(BIASED_IN_2012, 1.0),
        ),
        ("alexnet-2012", {"initial_bias": 0.1}, {}, dict.fromkeys(BIASED_IN_2012, 0.1)),
        ("cuda-convnet-26pct", {}, STDS_26PCT, {}),
        ("cuda-convnet-18pct", {}, STDS_18PCT, {}),
        ("cuda-convnet-13pct", {}, STDS_11PCT, {}),
        ("cuda-convnet-11pct", {}, STDS_11PCT, {}),
    ],
)
def test_initial_parameters_have_the_stds_of_the_source(name, fields, stds, biases):
    model, image_shape = MODELS[name](**fields), IMAGE_SHAPES[name]

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def statistics(key):  # compiled together, so that unused kernels are not drawn
        params = model.init(key, jnp.zeros((1, *image_shape)))["params"]
        kernels = {layer: params[layer]["kernel"].std() for layer in stds}
        return kernels, {layer: params[layer]["bias"] for layer in params}

    kernels, initial_biases = statistics(jax.random.key(0))
    chex.assert_trees_all_close(kernels, stds, rtol=0.05)
    for layer, bias in initial_biases.items():
        chex.assert_trees_all_equal(bias, jnp.full_like(bias, biases.get(layer, 0)))


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        ("alexnet", (1, 62, 224, 3), r"\[batch, >= 63, >= 63, channels\]"),
        ("alexnet", (224, 224, 3), r"\[batch, >= 63, >= 63, channels\]"),
        ("alexnet-2012", (1, 224, 227, 3), r".* or \[batch, 227, 227, channels\]"),
        ("alexnet-2012", (224, 224, 3), r".* or \[batch, 227, 227, channels\]"),
        ("cuda-convnet-18pct", (1, 24, 24, 3), r"\[batch, 32, 32, channels\]"),
        ("cuda-convnet-11pct", (1, 32, 32, 3), r"\[batch, 24, 24, channels\]"),
        ("cuda-convnet-11pct", (24, 24, 3), r"\[batch, 24, 24, channels\]"),
    ],
)
def test_networks_refuse_other_shapes(name, shape, expected):
    with pytest.raises(ValueError, match=f"have shape .* expected {expected}"):
        MODELS[name]().init(jax.random.key(0), jnp.zeros(shape))


def test_alexnet_takes_images_of_63_pixels():
    images = jnp.zeros((1, 63, 63, 3))
    logits = jax.eval_shape(MODELS["alexnet"]().init_with_output, jax.random.key(0), images)[0]
    assert logits.shape == (1, 1000)


@pytest.mark.parametrize("name", MODELS_HERE)
def test_networks_refuse_raw_pixels(name):
    images = jnp.zeros((1, *IMAGE_SHAPES[name]), jnp.uint8)
    with pytest.raises(TypeError, match="images are uint8; expected floating point"):
        MODELS[name]().init(jax.random.key(0), images)
