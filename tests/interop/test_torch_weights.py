"""Weights from and to PyTorch: names, layouts, files, and what is refused."""

import functools
import pathlib
import pickle
import sys

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch_networks
from helpers import assert_close, random_params

from jaxcnn.errors import UserError
from jaxcnn.interop.torch_weights import (
    TORCH_NAMES,
    from_torch,
    read_weights,
    to_torch,
    write_weights,
)
from jaxcnn.models import MODELS
from jaxcnn.training.step import cross_entropy

LENETS = [model for model in TORCH_NAMES if model.startswith("lenet5")]
IMAGE_SHAPES = dict.fromkeys(LENETS, (28, 28, 1)) | {"alexnet": (224, 224, 3)}

# The shapes of the notebook's state_dict.
LENET5_SHAPES = {
    **{"conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,)},
    **{"conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,)},
    **{"conv3.weight": (120, 16, 5, 5), "conv3.bias": (120,)},
    **{"fc1.weight": (84, 120), "fc1.bias": (84,)},
    **{"fc2.weight": (10, 84), "fc2.bias": (10,)},
}


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


@pytest.fixture(scope="module")
def entries():
    """A state_dict of LeNet-5: large, so that images have different answers."""
    rng = np.random.default_rng(1)
    return {n: rng.normal(0, 2, shape).astype(np.float32) for n, shape in LENET5_SHAPES.items()}


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
    assert list(back) == list(LENET5_SHAPES)
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


def test_from_torch_removes_the_prefix_of_data_parallel(entries):
    prefixed = {f"module.{name}": array for name, array in entries.items()}
    params = from_torch("lenet5", prefixed, shapes("lenet5"))
    chex.assert_trees_all_equal(to_torch("lenet5", params), entries)


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
        "these weights are not of lenet5: "
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


@pytest.mark.parametrize("extension", [".safetensors", ".pth", ".pt"])
def test_write_weights_keeps_the_bits(extension, entries, tmp_path):
    if extension != ".safetensors":
        pytest.importorskip("torch")
    path = tmp_path / f"lenet5{extension}"
    path.write_text("an older file")
    # As a transposed array lies in memory, which the formats do not have.
    transposed = {**entries, "fc1.weight": np.asfortranarray(entries["fc1.weight"])}
    write_weights(path, transposed)
    back = read_weights(path)
    chex.assert_trees_all_equal(back, entries)
    chex.assert_trees_all_equal_dtypes(back, entries)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing temporary is left


@pytest.mark.parametrize("extension", [".safetensors", ".pth"])
def test_write_weights_and_read_weights_agree_with_pytorch(extension, entries, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    in_torch = {".safetensors": (save_file, load_file), ".pth": (torch.save, torch.load)}
    save, load = in_torch[extension]
    ours, theirs = tmp_path / f"ours{extension}", tmp_path / f"theirs{extension}"
    write_weights(ours, entries)
    model = torch_networks.lenet5(torch)
    model.load_state_dict(load(ours), strict=True)
    save(model.state_dict(), theirs)
    chex.assert_trees_all_equal(read_weights(theirs), entries)

    save({n: t.bfloat16() for n, t in model.state_dict().items()}, theirs)
    rounded = {n: a.astype(ml_dtypes.bfloat16).astype(np.float32) for n, a in entries.items()}
    params = from_torch("lenet5", read_weights(theirs), shapes("lenet5"))
    chex.assert_trees_all_equal(to_torch("lenet5", params), rounded)


def test_read_weights_finds_a_state_dict_in_a_checkpoint(entries, tmp_path):
    torch = pytest.importorskip("torch")
    parameters = {n: torch.nn.Parameter(torch.tensor(a)) for n, a in entries.items()}
    torch.save({"epoch": 3, "state_dict": parameters}, tmp_path / "a.pth")
    chex.assert_trees_all_equal(read_weights(tmp_path / "a.pth"), entries)
    torch.save({"epoch": 3, "model": parameters}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="conv1.weight is missing.*model is unexpected, dict"):
        from_torch("lenet5", read_weights(tmp_path / "b.pth"), shapes("lenet5"))


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_read_weights_refuses_a_pickle_that_runs_code(form, tmp_path):
    torch = pytest.importorskip("torch")
    path, touched = tmp_path / "malicious.pth", tmp_path / "touched"
    content = {"conv1.weight": Malicious(touched)}
    if form == "zip":
        torch.save(content, path)
        torch.load(path, weights_only=False)
    else:
        path.write_bytes(pickle.dumps(content))
        pickle.loads(path.read_bytes())
    touched.unlink()  # it is malicious
    with pytest.raises(UserError, match="is refused: .*save the model's state_dict") as error:
        read_weights(path)
    assert not touched.exists() and "\n" not in str(error.value)


def test_read_weights_says_what_cannot_be_read(entries, tmp_path):
    def assert_refused(path, message):
        with pytest.raises(UserError, match=message) as error:
            read_weights(path)
        assert path.name in str(error.value) and "\n" not in str(error.value)

    assert_refused(tmp_path / "lenet5.h5", "no extension of weights: .safetensors, .pth, .pt")
    assert_refused(tmp_path / "missing.safetensors", "No such file")
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    assert_refused(folder, "Is a directory")

    whole = safetensors.numpy.save(entries)
    for name, data in {"cut": whole[:-8], "garbage": b"garbage" * 20, "empty": b""}.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(data)
        assert_refused(path, "is damaged or no .safetensors file")


def test_read_weights_says_what_cannot_be_read_of_pytorch(entries, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "lenet5.pth"
    write_weights(path, entries)
    whole, refused = path.read_bytes(), "is damaged or no .pth file|is refused: it is damaged"
    for data in (whole[: len(whole) // 2], b"garbage" * 20, b"\x93garbage" * 20, b""):
        path.write_bytes(data)
        with pytest.raises(UserError, match=refused) as error:
            read_weights(path)
        assert "\n" not in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match=r"holds a list, expected a state_dict\(\)"):
        read_weights(path)


def test_write_weights_says_what_cannot_be_written(entries, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no extension of weights"):
        write_weights(tmp_path / "lenet5.npz", entries)
    with pytest.raises(UserError, match="cannot write .*No such file"):
        write_weights(tmp_path / "missing" / "lenet5.safetensors", entries)
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot write .*Is a directory"):
        write_weights(folder, entries)
    older = tmp_path / "lenet5.safetensors"
    older.write_text("an older file")
    with pytest.raises(UserError, match="cannot write .*Not a directory"):
        write_weights(older / "lenet5.safetensors", entries)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(UserError, match="cannot write .*No space left"):
        write_weights(older, entries)
    assert older.read_text() == "an older file"
    assert {p.name for p in tmp_path.iterdir()} == {folder.name, older.name}


def test_read_weights_says_what_to_install(entries, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for act in (read_weights, functools.partial(write_weights, entries=entries)):
        with pytest.raises(UserError, match=r"pip install -e '\.\[torch\]', or use a \.safetens"):
            act(tmp_path / "lenet5.pth")
    write_weights(tmp_path / "lenet5.safetensors", entries)
