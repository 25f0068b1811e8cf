"""Names of networks with fields."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from helpers import random_network, random_params

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import load
from jaxcnn.interop.onnx import to_onnx
from jaxcnn.layers.padding import pad
from jaxcnn.layers.pooling import adaptive_avg_pool, avg_pool, min_pool
from jaxcnn.layers.subsampling import subsample
from jaxcnn.models import initializers
from jaxcnn.models.lenet import LeNet5
from jaxcnn.models.lenet_1998 import LeNet1998, squash
from jaxcnn.models.variants import CHOICES, changed_fields, constructor, options

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 28, 28, 1)), jnp.float32)
PADDINGS = {  # pads and mode of C1 and C3, size of C3's maps
    "same": (2, "constant", 14),
    "valid": (0, "constant", 8),
    "full": (4, "constant", 20),
    "reflect": (2, "reflect", 14),
    "circular": (2, "circular", 14),
}


def count(name):
    params = jax.eval_shape(constructor(name)().init, jax.random.key(0), IMAGES)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_fields_reach_the_network():
    network = constructor("lenet5-tanh:pool=min,initial=torch,double_softmax=true")(7)
    expected = LeNet5(7, nn.tanh, min_pool, None, initializers.torch_layer, True)
    assert network == expected
    assert constructor("lenet5-relu:activation=squash")().activation is squash
    assert constructor("lenet5-1998:j=40,full_c3=true,pool=average")() == LeNet1998(
        j=40.0, full_c3=True, pool=avg_pool
    )
    assert constructor("alexnet-32:dropout=0.5")().dropout == 0.5


@pytest.mark.parametrize(
    "fields",
    [f"{field}={value}" for field in options("lenet5") for value in CHOICES.get(field, ())],
)
def test_lenet5_has_the_same_parameters_with_every_field(fields):
    assert count(f"lenet5:{fields}") == 61_706


def test_parameters_of_the_paper_without_its_table_and_its_subsampling():
    assert count("lenet5-1998:full_c3=true") == 60_000 - 1_516 + 2_416
    assert count("lenet5-1998:pool=average") == 60_000 - 12 - 32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet:pool=max", "no model is called 'lenet'"),
        ("lenet5:", "'lenet5:' has ''; expected fields each once, of activation=sigmoid|tanh"),
        ("lenet5:pool", "has 'pool'; expected fields"),
        ("lenet5:pool=max,pool=min", "has 'pool=min'; expected fields each once"),
        ("lenet5:pool=maximum", "has pool=maximum; expected pool=average|max|min"),
        ("lenet5:dtype=bfloat16", "has 'dtype=bfloat16'; expected fields"),
        ("lenet5:num_classes=7", "has 'num_classes=7'; expected fields"),
        ("lenet5-modern:pool=max", "has 'pool=max'; expected fields each once, of no field"),
        ("lenet5-1998:j=nan", "has j=nan; expected j=X"),
        ("lenet5-1998:full_c3=yes", "has full_c3=yes; expected full_c3=true|false"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UserError) as error:
        constructor(name)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "padding",
    [
        "full",
        *(
            pytest.param(padding, marks=pytest.mark.slow)
            for padding in ("same", "valid", "reflect", "circular")
        ),
    ],
)
def test_padding_of_lenet5_is_that_of_the_helpers(padding):
    pads, mode, size = PADDINGS[padding]
    model = constructor(f"lenet5-tanh:padding={padding}")()
    params = random_params(model, (28, 28, 1))

    def conv(x, layer, pads):
        x = pad(x, (pads, pads), mode=mode) if pads else x
        kernel, bias = params[layer]["kernel"], params[layer]["bias"]
        dims = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims)
        return jnp.tanh(y + bias.reshape(1, 1, 1, -1))

    x = conv(avg_pool(conv(IMAGES, "C1", pads), (2, 2)), "C3", pads)
    assert x.shape[1:3] == (size, size)
    x = conv(adaptive_avg_pool(x, (5, 5)), "C5", 0).reshape(2, 120)
    x = jnp.tanh(x @ params["F6"]["kernel"] + params["F6"]["bias"].reshape(1, -1))
    expected = x @ params["output"]["kernel"] + params["output"]["bias"].reshape(1, -1)
    np.testing.assert_allclose(model.apply({"params": params}, IMAGES), expected, atol=1e-5)


def test_minimum_pools_of_odd_units_are_maximum_pools_with_other_signs():
    minimum = constructor("lenet5-tanh:pool=min")()
    params = random_params(minimum, (28, 28, 1))
    signs = {"C1": (-1, -1), "C3": (1, -1), "C5": (-1, 1), "F6": (1, 1), "output": (1, 1)}
    changed = {
        layer: {
            "kernel": of_kernel * params[layer]["kernel"],
            "bias": of_bias * params[layer]["bias"],
        }
        for layer, (of_kernel, of_bias) in signs.items()
    }
    expected = minimum.apply({"params": params}, IMAGES)
    outputs = constructor("lenet5-tanh:pool=max")().apply({"params": changed}, IMAGES)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_double_softmax_returns_the_probabilities():
    params = random_params(LeNet5(), (28, 28, 1))
    logits = LeNet5().apply({"params": params}, IMAGES)
    outputs = LeNet5(double_softmax=True).apply({"params": params}, IMAGES)
    np.testing.assert_allclose(outputs, jax.nn.softmax(logits), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "kernel", "bias"),
    [
        ("linen", 3 / 20, 0),  # a deviation of 1 / sqrt(400) = 1 / 20, cut at 2 / 0.88 of it
        ("paper", 2.4 / 400, 2.4 / 400),
        ("lecun-uniform", 3**0.5 / 20, 3**0.5 / 20),
        ("torch", 1 / 20, 1 / 20),
        ("glorot", (6 / (400 + 25 * 120)) ** 0.5, 0),
    ],
)
def test_initial_values_of_c5_fill_their_range(name, kernel, bias):
    model = constructor(f"lenet5:initial={name}")()
    params = jax.jit(model.init)(jax.random.key(0), IMAGES)["params"]["C5"]
    for values, limit in ((params["kernel"], kernel), (params["bias"], bias)):
        largest = float(jnp.abs(values).max())
        assert largest <= limit and (largest > 0.7 * limit or limit == 0)
    assert float(params["kernel"].std()) == pytest.approx(
        1 / 20 if name == "linen" else kernel / 3**0.5, rel=0.05
    )


def test_exports_refuse_fields_that_they_would_ignore():
    assert changed_fields(LeNet5(pool=subsample, padding=4), known=("pool",)) == ["padding"]
    assert not changed_fields(LeNet5(7, initial=initializers.torch_layer), known=())
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match="its own full_c3; ONNX builds LeNet1998 with the defaults"):
        to_onnx(random_network("lenet5-1998:full_c3=true"), {})
    with pytest.raises(UserError, match="the padding CIRCULAR; expected zeros"):
        to_onnx(random_network("lenet5:padding=circular"), {})


@pytest.mark.slow
def test_run_is_named_after_the_fields_trained_and_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = PRESETS["lenet5-mnist5k"]
    model = "lenet5:pool=max,double_softmax=true"
    config = replace(preset.config, model=model, preset="custom", epochs=1)
    result = train_and_evaluate(config)
    [run] = (tmp_path / "runs").iterdir()
    assert "pool=max,double_softmax=true" in run.name and ":" not in run.name
    classifier = load(run)
    assert classifier.trained.model.double_softmax
    assert result["test_loss"] > 1.4611  # log(e + 9) - 1, of one-hot probabilities
