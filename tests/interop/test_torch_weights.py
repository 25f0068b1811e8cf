import dataclasses
import functools
import json
import pathlib
import pickle
import runpy
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxcnn import PRESETS
from jaxcnn.config import TrainConfig
from jaxcnn.data import datasets
from jaxcnn.errors import UserError
from jaxcnn.interop.runs import export_run, import_run
from jaxcnn.interop.torch_weights import (
    TORCH_NAMES,
    from_torch,
    read_weights,
    to_torch,
    write_weights,
)
from jaxcnn.models import MODELS
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.progress import start_or_resume
from jaxcnn.training.step import cross_entropy
from jaxcnn.workdir import folder as workdir
from jaxcnn.workdir.checkpoints import Checkpoints

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
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


@functools.cache
def shapes(model):
    images = jnp.zeros((1, *IMAGE_SHAPES[model]))
    init = MODELS[model](num_classes=10).init
    return jax.eval_shape(init, jax.random.key(0), images)["params"]


def random_params(model):
    """With every layer's outputs of about the size of its inputs."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 100
        return (2 * rng.random(leaf.shape, np.float32) - 1) * np.float32(np.sqrt(6 / fan_in))

    return jax.tree.map(draw, shapes(model))


@pytest.fixture(scope="module")
def entries():
    """A state_dict of LeNet-5: large, so that images have different answers."""
    rng = np.random.default_rng(1)
    return {n: rng.normal(0, 2, shape).astype(np.float32) for n, shape in LENET5_SHAPES.items()}


def torch_lenet5(torch):
    """The course notebook's."""

    class LeNet5(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = torch.nn.Conv2d(1, 6, kernel_size=5, stride=1, padding=2)
            self.conv2 = torch.nn.Conv2d(6, 16, kernel_size=5, stride=1)
            self.conv3 = torch.nn.Conv2d(16, 120, kernel_size=5, stride=1)
            self.fc1 = torch.nn.Linear(120, 84)
            self.fc2 = torch.nn.Linear(84, 10)

        def forward(self, x):
            pool = torch.nn.functional.avg_pool2d
            x = pool(torch.sigmoid(self.conv1(x)), 2)
            x = pool(torch.sigmoid(self.conv2(x)), 2)
            x = torch.sigmoid(self.conv3(x)).flatten(1)
            return self.fc2(torch.sigmoid(self.fc1(x)))  # the notebook's softmax left out

    return LeNet5()


def torch_alexnet(torch):
    """torchvision's, in evaluation: the layers of its models/alexnet.py, for 10 classes."""
    t = torch.nn

    class AlexNet(t.Module):
        def __init__(self):
            super().__init__()
            self.features = t.Sequential(
                *(t.Conv2d(3, 64, kernel_size=11, stride=4, padding=2), t.ReLU()),
                t.MaxPool2d(kernel_size=3, stride=2),
                *(t.Conv2d(64, 192, kernel_size=5, padding=2), t.ReLU()),
                t.MaxPool2d(kernel_size=3, stride=2),
                *(t.Conv2d(192, 384, kernel_size=3, padding=1), t.ReLU()),
                *(t.Conv2d(384, 256, kernel_size=3, padding=1), t.ReLU()),
                *(t.Conv2d(256, 256, kernel_size=3, padding=1), t.ReLU()),
                t.MaxPool2d(kernel_size=3, stride=2),
            )
            self.avgpool = t.AdaptiveAvgPool2d((6, 6))
            self.classifier = t.Sequential(
                *(t.Dropout(), t.Linear(256 * 6 * 6, 4096), t.ReLU()),
                *(t.Dropout(), t.Linear(4096, 4096), t.ReLU()),
                t.Linear(4096, 10),
            )

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    with torch.device("meta"):  # its parameters are loaded
        return AlexNet().eval()


def load(module, entries):
    """Raises if a name or a shape differs."""
    import torch

    state_dict = {name: torch.tensor(array) for name, array in entries.items()}
    module.load_state_dict(state_dict, assign=True)


def nchw(torch, images):
    return torch.tensor(np.moveaxis(images, -1, 1))


def assert_close(actual, expected):
    """To 1e-4 of the largest value expected, leaf by leaf."""

    def check(a, b):
        assert a.shape == b.shape and np.abs(a - b).max() <= 1e-4 * np.abs(b).max()

    jax.tree.map(check, jax.device_get(actual), expected)


@pytest.mark.parametrize(
    ("model", "make"),
    [("lenet5", torch_lenet5), pytest.param("alexnet", torch_alexnet, marks=pytest.mark.slow)],
)
def test_logits_and_gradients_are_pytorchs(model, make):
    torch = pytest.importorskip("torch")
    theirs, params = make(torch), random_params(model)
    exported = to_torch(model, params)
    assert list(exported) == list(theirs.state_dict())
    load(theirs, exported)
    theirs.requires_grad_(True)
    apply = MODELS[model](num_classes=10).apply
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
    expected_grads = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert_close(logits, expected.detach().numpy())
    assert_close(grads, from_torch(model, expected_grads, params))

    if model == "alexnet":  # fc6 sees averages over 7x7 maps
        images = rng.standard_normal((1, 256, 256, 3), np.float32)
        logits = jax.jit(apply)({"params": params}, images)
        assert_close(logits, theirs(nchw(torch, images)).detach().numpy())


@pytest.mark.parametrize("model", LENETS)
def test_the_lenets_are_the_notebooks_entries(model, entries):
    params = from_torch(model, entries, shapes(model))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, shapes(model))
    back = to_torch(model, params)
    assert list(back) == list(LENET5_SHAPES)
    chex.assert_trees_all_equal(back, entries)


def test_fc6_counts_channels_slowest_in_pytorch_and_fastest_here():
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
def test_other_floats_become_float32(dtype, entries):
    cast = {name: array.astype(dtype) for name, array in entries.items()}
    params = from_torch("lenet5", cast, shapes("lenet5"))
    chex.assert_type(jax.tree.leaves(params), np.float32)
    expected = {name: array.astype(np.float32) for name, array in cast.items()}
    chex.assert_trees_all_equal(to_torch("lenet5", params), expected)


def test_the_prefix_of_data_parallel_is_taken_off(entries):
    prefixed = {f"module.{name}": array for name, array in entries.items()}
    params = from_torch("lenet5", prefixed, shapes("lenet5"))
    chex.assert_trees_all_equal(to_torch("lenet5", params), entries)


def test_one_message_names_everything_that_does_not_fit(entries):
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


def test_the_number_of_classes_is_that_of_the_model(entries):
    hundred = jax.eval_shape(
        MODELS["lenet5"](num_classes=100).init, jax.random.key(0), jnp.zeros((1, 28, 28, 1))
    )
    with pytest.raises(UserError, match=r"fc2.bias is float32 \[10\], expected .* \[100\]"):
        from_torch("lenet5", entries, hundred["params"])


def test_a_model_that_pytorch_has_not_is_refused():
    for convert in (to_torch, functools.partial(from_torch, like={})):
        with pytest.raises(UserError, match="no convertible model is called 'alexnet-2012'"):
            convert("alexnet-2012", {})


@pytest.mark.parametrize("extension", [".safetensors", ".pth", ".pt"])
def test_files_hold_the_same_bits_and_are_replaced_whole(extension, entries, tmp_path):
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
def test_files_are_read_and_written_by_pytorch_too(extension, entries, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    in_torch = {".safetensors": (save_file, load_file), ".pth": (torch.save, torch.load)}
    save, load = in_torch[extension]
    ours, theirs = tmp_path / f"ours{extension}", tmp_path / f"theirs{extension}"
    write_weights(ours, entries)
    model = torch_lenet5(torch)
    model.load_state_dict(load(ours), strict=True)
    save(model.state_dict(), theirs)
    chex.assert_trees_all_equal(read_weights(theirs), entries)

    save({n: t.bfloat16() for n, t in model.state_dict().items()}, theirs)
    rounded = {n: a.astype(ml_dtypes.bfloat16).astype(np.float32) for n, a in entries.items()}
    params = from_torch("lenet5", read_weights(theirs), shapes("lenet5"))
    chex.assert_trees_all_equal(to_torch("lenet5", params), rounded)


def test_a_state_dict_in_a_checkpoint_is_found(entries, tmp_path):
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
def test_a_pickle_that_runs_code_is_refused(form, tmp_path):
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


def test_files_that_cannot_be_read_are_one_message(entries, tmp_path):
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


def test_pytorch_files_that_cannot_be_read_are_one_message(entries, tmp_path):
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


def test_files_that_cannot_be_written_are_one_message(entries, tmp_path, monkeypatch):
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


def test_without_pytorch_its_files_say_what_to_install(entries, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for act in (read_weights, functools.partial(write_weights, entries=entries)):
        with pytest.raises(UserError, match=r"pip install -e '\.\[torch\]', or use a \.safetens"):
            act(tmp_path / "lenet5.pth")
    write_weights(tmp_path / "lenet5.safetensors", entries)


def run(script, *arguments):
    command = [sys.executable, SCRIPTS / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def imported(entries, tmp_path_factory):
    """A run that the script made of a file."""
    folder = tmp_path_factory.mktemp("imported")
    write_weights(folder / "lenet5.safetensors", entries)
    run_folder = folder / "run"
    flags = ["--preset", "lenet5-mnist5k", "--model", "lenet5"]
    flags += ["--pixel-mean", 0.25, "--pixel-std", 0.5]
    done = run("convert.py", folder / "lenet5.safetensors", run_folder, *flags)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert f"evaluate.py {run_folder}" in done.stdout
    return run_folder


def test_an_imported_run_is_evaluated_as_pytorch_evaluates_it(imported, entries):
    torch = pytest.importorskip("torch")
    theirs, dataset = torch_lenet5(torch), datasets.load("mnist5k")
    load(theirs, entries)
    images = (dataset.test_images.astype(np.float32) / 255 - 0.25) / 0.5
    labels = torch.tensor(dataset.test_labels).long()
    with torch.no_grad():
        logits = theirs(nchw(torch, images))
    answers = torch.softmax(logits, 1).argmax(1)  # the notebook's
    assert len(answers.unique()) > 1

    done = run("evaluate.py", imported)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    evaluation = json.loads((imported / "evaluation.json").read_text())
    assert evaluation["step"] == 0
    assert evaluation["test_accuracy"] == pytest.approx((answers == labels).float().mean().item())
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert evaluation["test_loss"] == pytest.approx(loss, rel=1e-4)


def test_an_imported_run_is_exported_to_the_same_bits(imported, entries, tmp_path):
    assert export_run(imported, tmp_path / "lenet5.safetensors") == 0
    chex.assert_trees_all_equal(read_weights(tmp_path / "lenet5.safetensors"), entries)
    with pytest.raises(UserError, match="no checkpoint of step 7; there are 0"):
        export_run(imported, tmp_path / "lenet5.safetensors", step=7)


def test_the_mean_of_the_parameters_is_imported_and_exported(entries, tmp_path):
    write_weights(tmp_path / "lenet5.safetensors", entries)
    config = TrainConfig(dataset="mnist5k", ema_decay=0.9)
    import_run(tmp_path / "lenet5.safetensors", tmp_path / "run", config)
    config = workdir.read_config(tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        state, _ = checkpoints.restore(Experiment(config).state, 0)
        assert state.eval_params is not state.params
        chex.assert_trees_all_equal(state.eval_params, state.params)
        doubled = jax.tree.map(lambda leaf: 2 * leaf, state.params)
        later = state.replace(step=state.step + 1, params=doubled)
        checkpoints.save(later, {})
        checkpoints.wait()
    assert export_run(tmp_path / "run", tmp_path / "mean.safetensors") == 1
    chex.assert_trees_all_equal(read_weights(tmp_path / "mean.safetensors"), entries)


def test_a_folder_that_holds_a_run_is_refused_and_kept(imported, entries, tmp_path):
    write_weights(tmp_path / "other.safetensors", {n: 2 * a for n, a in entries.items()})
    for config in (workdir.read_config(imported), TrainConfig(dataset="mnist5k", seed=1)):
        before = (imported / "config.json").read_bytes()
        with pytest.raises(UserError, match="holds a run already; choose another folder"):
            import_run(tmp_path / "other.safetensors", imported, config)
        assert (imported / "config.json").read_bytes() == before
    export_run(imported, tmp_path / "kept.safetensors")
    chex.assert_trees_all_equal(read_weights(tmp_path / "kept.safetensors"), entries)


def test_weights_that_do_not_fit_leave_no_folder(entries, tmp_path):
    config = TrainConfig(dataset="mnist5k")
    write_weights(tmp_path / "part.safetensors", {"conv1.bias": entries["conv1.bias"]})
    with pytest.raises(UserError, match="conv1.weight is missing"):
        import_run(tmp_path / "part.safetensors", tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_training_goes_on_from_imported_weights(imported, entries, monkeypatch):
    monkeypatch.setattr(Experiment, "compile", lambda self: 0.0)  # nothing is trained here
    experiment = Experiment(workdir.read_config(imported))
    with Checkpoints(imported / "checkpoints") as checkpoints:
        run = start_or_resume(experiment, checkpoints, started=0.0)
    chex.assert_trees_all_equal(to_torch("lenet5", run.state.params), entries)
    chex.assert_trees_all_equal(run.state.opt_state, experiment.state.opt_state)
    assert run.step == 0 and run.metrics == experiment.no_metrics() and run.test is None
    assert experiment.config.workdir == str(imported)
    recipe = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config, model="lenet5", workdir=str(imported)
    )
    recipe = dataclasses.replace(recipe, preset="custom")
    recipe = dataclasses.replace(recipe, pixel_mean=(0.25,), pixel_std=(0.5,))
    assert recipe == experiment.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "one of a and b must be a run's folder, and the other a file ending in"),
        (["a.pth", "b.pth"], "one of a.pth and b.pth must be a run's folder"),
        (["a.pth", "b", "--step", "1"], "--step is of a run's checkpoint"),
        (["a", "b.pth", "--model", "alexnet"], "a has its own config: leave --model away"),
        (["a.pth", "b", "--preset", "lenet5-mnits"], "no preset is called 'lenet5-mnits'; did"),
    ],
)
def test_a_request_at_fault_ends_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert.py", *arguments])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SCRIPTS / "convert.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
