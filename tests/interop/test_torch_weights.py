"""Weights from and to PyTorch: names, layouts, wrappers, and what is refused."""

import functools

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch_networks
from helpers import assert_close, random_params

from jaxcnn.errors import UserError
from jaxcnn.interop.torch_weights import TORCH_NAMES, from_torch, to_torch, unwrapped
from jaxcnn.models import MODELS
from jaxcnn.training.step import cross_entropy

LENETS = [model for model in TORCH_NAMES if model.startswith("lenet5")]
IMAGE_SHAPES = dict.fromkeys(LENETS, (28, 28, 1)) | {"alexnet": (224, 224, 3)}

# torchvision's state_dict.
ALEXNET_NAMES = [
    f"{layer}.{part}"
    for layer in (
        *(f"features.{index}" for index in (0, 3, 6, 8, 10)),
        *(f"classifier.{index}" for index in (1, 4, 6)),
    )
    for part in ("weight", "bias")
]


@functools.cache
def shapes(model):
    images = jnp.zeros((1, *IMAGE_SHAPES[model]))
    init = MODELS[model](num_classes=10).init
    return jax.eval_shape(init, jax.random.key(0), images)["params"]


def load(module, entries):
    """Raises if a name or a shape differs."""
    import torch

    state_dict = {name: torch.tensor(array) for name, array in entries.items()}
    module.load_state_dict(state_dict, assign=True)


def nchw(torch, images):
    return torch.tensor(np.moveaxis(images, -1, 1))


def torch_function(torch, model, entries):
    """Return a function of images by PyTorch with these entries, and its parameters by name."""
    if model == "lenet5":
        module = torch_networks.lenet5(torch)
        load(module, entries)
        return module, dict(module.named_parameters())
    assert list(entries) == ALEXNET_NAMES
    parameters = {name: torch.tensor(array, requires_grad=True) for name, array in entries.items()}
    values = iter(parameters.values())
    p = {layer: (next(values), next(values)) for layer in TORCH_NAMES["alexnet"]}
    return functools.partial(torch_networks.alexnet, torch.nn.functional, p), parameters


@pytest.mark.parametrize("model", ["lenet5", pytest.param("alexnet", marks=pytest.mark.slow)])
def test_to_torch_gives_the_logits_and_gradients_of_pytorch(model):
    torch = pytest.importorskip("torch")
    network = MODELS[model](num_classes=10)
    params, apply = random_params(network, IMAGE_SHAPES[model]), network.apply
    theirs, parameters = torch_function(torch, model, to_torch(model, params))
    rng = np.random.default_rng(2)
    images, labels = rng.standard_normal((2, *IMAGE_SHAPES[model]), np.float32), np.arange(2)

    @jax.jit
    def logits_and_grads(params):
        def mean_loss(params):
            logits = apply({"params": params}, images)
            return cross_entropy(logits, labels).mean(), logits

        grads, logits = jax.grad(mean_loss, has_aux=True)(params)
        return logits, grads

    logits, grads = logits_and_grads(params)
    expected = theirs(nchw(torch, images))
    torch.nn.functional.cross_entropy(expected, torch.tensor(labels)).backward()
    expected_grads = {name: p.grad.numpy() for name, p in parameters.items()}
    assert_close(logits, expected.detach().numpy(), 1e-4)
    assert_close(grads, from_torch(model, expected_grads, params), 1e-4)

    if model == "alexnet":  # fc6 sees averages over 7x7 maps
        images = rng.standard_normal((1, 256, 256, 3), np.float32)
        logits = jax.jit(apply)({"params": params}, images)
        assert_close(logits, theirs(nchw(torch, images)).detach().numpy(), 1e-4)


@pytest.mark.parametrize("model", LENETS)
def test_from_torch_and_to_torch_are_inverse_for_lenets(model, entries):
    params = from_torch(model, entries, shapes(model))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, shapes(model))
    back = to_torch(model, params)
    assert list(back) == list(torch_networks.LENET5_SHAPES)
    chex.assert_trees_all_equal(back, entries)


def test_to_torch_orders_the_inputs_of_fc6_by_channel():
    layers = {
        layer: {"kernel": np.zeros((1, 1), np.float32), "bias": np.zeros(1, np.float32)}
        for layer in TORCH_NAMES["alexnet"]
    }
    row, column, channel = np.indices((6, 6, 2), np.float32)
    value = 100 * channel + 10 * row + column  # of two maps
    layers["fc6"] = {"kernel": value.reshape(72, 1), "bias": np.zeros(1, np.float32)}
    exported = to_torch("alexnet", layers)
    weight = exported["classifier.1.weight"]
    assert weight[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 10, 11]
    assert weight[0, 36:38].tolist() == [100, 101]
    chex.assert_trees_all_equal(from_torch("alexnet", exported, layers), layers)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_from_torch_converts_other_floats(dtype, entries):
    cast = {name: array.astype(dtype) for name, array in entries.items()}
    params = from_torch("lenet5", cast, shapes("lenet5"))
    chex.assert_type(jax.tree.leaves(params), np.float32)
    expected = {name: array.astype(np.float32) for name, array in cast.items()}
    chex.assert_trees_all_equal(to_torch("lenet5", params), expected)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("module.", "weights: module.\n"),
        ("_orig_mod.module.", "weights: _orig_mod., module.\n"),
        ("net.", "weights: net.\n"),
        ("model.module.", "weights: model., module.\n"),
        ("classifier.backbone.", "weights: classifier.backbone.\n"),
    ],
)
def test_from_torch_removes_and_prints_prefixes(prefix, message, entries, capsys):
    prefixed = {f"{prefix}{name}": array for name, array in entries.items()}
    others = {"n_averaged": np.int64(3)}
    if "module" not in prefix:
        others["criterion.weight"] = np.ones(10)  # of Lightning's module, beside the network
    params = from_torch("lenet5", prefixed | others, shapes("lenet5"))
    chex.assert_trees_all_equal(to_torch("lenet5", params), entries)
    said = capsys.readouterr().out
    assert said.endswith(message)
    assert ("Ignored" in said and "criterion.weight" in said) == ("module" not in prefix)


def test_unwrapped_removes_data_parallel_inside_of_a_network():
    inside = [name.replace("features.", "features.module.") for name in ALEXNET_NAMES]
    found = unwrapped(dict.fromkeys(inside), ALEXNET_NAMES)
    assert list(found) == ALEXNET_NAMES


@pytest.mark.parametrize(
    ("prefixes", "message"),
    [
        (("model.", "ema."), "hold 2 networks, with the prefixes 'model.', 'ema.'; expected one"),
        (("", "ema."), "hold 2 networks, with the prefixes '', 'ema.'"),
        (("", "module."), "hold conv1.weight twice, once as module.conv1.weight"),
    ],
)
def test_from_torch_refuses_two_networks(prefixes, message, entries):
    both = {f"{prefix}{name}": array for prefix in prefixes for name, array in entries.items()}
    with pytest.raises(UserError, match=message):
        from_torch("lenet5", both, shapes("lenet5"))


def test_from_torch_names_everything_that_does_not_fit(entries):
    spoiled = {name: array for name, array in entries.items() if name != "conv1.bias"}
    spoiled["conv2.weight"] = np.moveaxis(entries["conv2.weight"], 0, -1)
    spoiled["fc1.bias"] = np.zeros(84, np.int64)
    spoiled["fc1.weight"] = np.full((84, 120), 1e39)
    spoiled["fc2.bias"] = "no array"
    spoiled["bn1.running_mean"] = np.zeros(6, np.float32)
    with pytest.raises(UserError) as error:
        from_torch("lenet5", spoiled, shapes("lenet5"))
    assert str(error.value) == (
        "these weights do not fit lenet5: "
        "conv1.bias is missing, expected floating point [6]; "
        "conv2.weight is float32 [6, 5, 5, 16], expected floating point [16, 6, 5, 5]; "
        "fc1.weight has values that are not finite in float32; "
        "fc1.bias is int64 [84], expected floating point [84]; "
        "fc2.bias is str, expected floating point [10]; "
        "bn1.running_mean is unexpected, float32 [6]"
    )


def test_from_torch_refuses_another_number_of_classes(entries):
    hundred = jax.eval_shape(
        MODELS["lenet5"](num_classes=100).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    )
    with pytest.raises(UserError, match=r"fc2.bias is float32 \[10\], expected .* \[100\]"):
        from_torch("lenet5", entries, hundred["params"])


def test_from_torch_and_to_torch_refuse_models_without_names():
    for convert in (to_torch, functools.partial(from_torch, like={})):
        with pytest.raises(UserError, match="no convertible model is called 'alexnet-2012'"):
            convert("alexnet-2012", {})
