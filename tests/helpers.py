"""What several test modules share: an assertion, processes, random parameters, small datasets."""

import contextlib
import functools
import gzip
import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from hypothesis import strategies as st
from PIL import Image

from jaxcnn.config import to_json
from jaxcnn.data import transforms
from jaxcnn.data.datasets import Dataset
from jaxcnn.distributed import mesh
from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.models import MODELS
from jaxcnn.models.variants import constructor
from jaxcnn.models.variants import image_shape as image_shape_of
from jaxcnn.training import step
from jaxcnn.training.experiment import Experiment

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


def assert_close(actual, expected, tolerance=1e-5):
    """Assert that two trees agree, leaf by leaf, relative to the largest value expected."""

    def check(path, a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        where = jax.tree_util.keystr(path)
        assert a.shape == b.shape, f"{where}: {a.shape}, expected {b.shape}"
        atol = tolerance * np.abs(b).max(initial=0.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=where)

    jax.tree_util.tree_map_with_path(check, actual, expected)


# Processes.


def script_command(script, *arguments, python=()):
    """Return the command that starts a script, with `python` as options of the interpreter."""
    return [sys.executable, *python, SCRIPTS / script, *map(str, arguments)]


def run_script(script, *arguments, python=(), timeout=240, cwd=None, **environment):
    """Run a script to its end; return its status, output and errors."""
    return subprocess.run(
        script_command(script, *arguments, python=python),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )


def start_script(script, *arguments, cwd=None, **environment):
    """Start a script and return its process."""
    return subprocess.Popen(
        script_command(script, *arguments),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def run_python(code, *arguments):
    """Run a program in a process of its own and return its output."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rounds(count):
    """Return the numbers of the rounds of a fuzzing test: FUZZ_TIMES (1) times `count`."""
    return range(count * int(os.environ.get("FUZZ_TIMES", "1")))


# Networks.

# The names of the networks with convolutions.
CONVOLUTIONAL = [name for name in MODELS if not name.startswith(("linear", "mlp-"))]


def random_params(model, image_shape, seed=0):
    """Return parameters with which values keep their size from layer to layer."""
    images = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[:-1])
        if path[0].key.startswith("local"):  # [height, width, inputs, features]
            fan_in = leaf.shape[-2]
        if path[-1].key == "bias" or leaf.ndim == 1:
            fan_in = 100
        return (2 * rng.random(leaf.shape, np.float32) - 1) * np.float32(np.sqrt(6 / fan_in))

    return jax.tree_util.tree_map_with_path(draw, shapes)


def random_network(name, *, image_shape=None, **fields):
    """Return a `Trained` of random parameters for 10 classes; `fields` are those of its config."""
    from jaxcnn.config import TrainConfig
    from jaxcnn.interop.trained import Trained, input_shape
    from jaxcnn.workdir.dataset_info import DatasetInfo

    channels = image_shape_of(name)[2]
    pixels = {"pixel_mean": (0.2,) * channels, "pixel_std": (0.7, 0.6, 0.5)[:channels]}
    config = TrainConfig(model=name, **{**pixels, **fields})
    info = DatasetInfo(tuple("abcdefghij"), image_shape or image_shape_of(name), 100)
    model = constructor(name)(num_classes=10)
    params = random_params(model, input_shape(config, info))
    return Trained(config, info, model, jax.tree.map(np.asarray, params), 7, name)


def photographs(count, shape):
    """Return pieces of a photograph that matplotlib ships, uint8 [count, *shape]."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as photograph:
        whole = np.asarray(photograph.convert("L" if shape[2] == 1 else "RGB"))
    whole = whole.reshape(*whole.shape[:2], -1)
    rng = np.random.default_rng(0)
    corners = rng.integers(np.array(whole.shape[:2]) - shape[:2] + 1, size=(count, 2))
    return np.stack([whole[top : top + shape[0], left : left + shape[1]] for top, left in corners])


def layer_shapes(name):
    """Return the shape of each layer's output for one image and ten classes."""
    model = constructor(name)(num_classes=10)

    def run(key, images):
        variables = model.init(key, images)
        rngs = {"dropout": key}
        return model.apply(variables, images, train=True, rngs=rngs, capture_intermediates=True)[1]

    images = jnp.zeros((1, *image_shape_of(name)))
    layers = jax.eval_shape(run, jax.random.key(0), images)["intermediates"]
    return {layer: layers[layer]["__call__"][0].shape[1:] for layer in layers if layer[0] != "_"}


class Tiny(nn.Module):
    """A linear classifier, after a convolution and a dropout where these are asked for."""

    num_classes: int = 3
    filters: int = 0
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images
        if self.filters:
            conv = nn.Conv(self.filters, (3, 3), conv_general_dilated=conv_general_dilated)
            x = nn.tanh(conv(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(self.num_classes)(x)


class Fragile(nn.Module):
    """A linear network whose outputs are not finite for a white image."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(3, name="dense")(images.reshape(len(images), -1))
        is_white = images.min(axis=(1, 2, 3)) > 0.99
        x = x / jnp.where(is_white, 0.0, 1.0)[:, None]
        return nn.Dense(self.num_classes, name="head")(x)

    def code(self, images):
        """Return the outputs, for diagonal-lm."""
        return self(images)


def with_a_white_image():
    """Return a dataset of 64 images [4, 4, 1]; the first training image is white."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(64, 4, 4, 1), dtype=np.uint8)
    test_images = images.copy()
    images[0] = 255
    labels = rng.integers(3, size=64, dtype=np.int32)
    return Dataset("noise", images, labels, test_images, labels, tuple("abc"))


def new_state(model, tx=None):
    """Return a state for images [4, 4, 1], on all devices."""
    create = functools.partial(step.create_state, model, tx or optax.adam(0.1), (4, 4, 1))
    return jax.jit(create, out_shardings=mesh.replicated(mesh.device_mesh()))(jax.random.key(0))


def tiny_train_set():
    """Return 18 images and labels for `Tiny`: with batches of 4, two are left over."""
    rng = np.random.default_rng(0)
    images = rng.integers(255, size=(18, 4, 4, 1), dtype=np.uint8)
    return images, rng.integers(3, size=18, dtype=np.int32)


@contextlib.contextmanager
def interrupted_at(step, monkeypatch):
    """Interrupt training at the first line of its log at `step` or later."""
    learning_rate = Experiment.learning_rate

    def interrupt(self, last):
        if last >= step:
            raise KeyboardInterrupt
        return learning_rate(self, last)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Experiment, "learning_rate", interrupt)
        yield


# Images.


def grid(batch, height, width, channels=1, dtype=np.float32):
    """Every pixel another value (of uint8 images, modulo 256)."""
    values = np.arange(batch * height * width * channels).astype(dtype)
    return jnp.asarray(values.reshape(batch, height, width, channels))


def noise(*shape, dtype=np.float32):
    """The same random pixels at each call."""
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    return jnp.asarray(pixels)


# Every transform, with values inside the bounds of its fields.
TRANSFORMS = st.one_of(
    st.builds(transforms.Resize, st.integers(1, 8192)),
    st.integers(1, 8192).flatmap(
        lambda size: st.builds(transforms.RandomCrop, st.just(size), st.integers(0, size - 1))
    ),
    st.builds(transforms.CenterCrop, st.integers(1, 8192)),
    st.builds(transforms.HorizontalFlip),
    st.builds(transforms.Deslant),
    st.builds(transforms.Invert, st.floats(0, 1)),
    st.builds(
        transforms.Affine,
        st.floats(0, 180),
        st.floats(0, 8192),
        st.floats(0, 1, exclude_max=True),
        st.floats(0, 90, exclude_max=True),
        st.floats(0, 1, exclude_max=True),
    ),
    st.builds(transforms.PCAColor, st.floats(0, 10)),
    st.builds(transforms.Cutout, st.integers(1, 8192)),
)


def clustered(count, seed):
    """Return images of 4x3 pixels and their 4 classes, which overlap; prototypes have no seed."""
    prototypes = np.random.default_rng(7).normal(size=(4, 4, 3, 1))
    rng = np.random.default_rng(seed)
    labels = rng.integers(4, size=count)
    images = prototypes[labels] + rng.normal(size=(count, 4, 3, 1))
    return images.astype(np.float32), labels


# Folders of images, and streams; see also the fixture `image_folder`.

CLASSES = ("cat", "dog", "eel")


def save_image(path, width, height, seed=0):
    """Save smooth noise: its pixels survive scaling and JPEG."""
    small = np.random.default_rng(seed).integers(256, size=(6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)


def open_folder(folder, on_bad_image="refuse", **options):
    """Open a folder of images as a stream."""
    from jaxcnn.data.stream import load  # late: it imports Grain

    fields = {"size": 28, "min_size": 32, "on_bad_image": on_bad_image}
    return load(f"folder:{folder}", **{**fields, **options})


def drawn_page(digit, rng, *, size, noise=0.0):
    """Return a page of 600x800, lighter towards one side, with a digit drawn dark on it."""
    height, width = 600, 800
    strokes = Image.fromarray(digit).resize((size, size), Image.Resampling.BICUBIC)
    ink = rng.uniform(60, 180) * np.asarray(strokes, np.float32) / 255
    top, left = (rng.integers(side - size + 1) for side in (height, width))
    angle, gradient = rng.uniform(-np.pi, np.pi), rng.uniform(0, 40)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    page = rng.uniform(190, 230) + gradient / 2 * (np.cos(angle) * x + np.sin(angle) * y)
    page[top : top + size, left : left + size] -= ink
    page += rng.normal(0, noise, page.shape)
    return np.rint(np.clip(page, 0, 255)).astype(np.uint8)


class Numbered:
    """Examples whose images are their own number, stored as PNG."""

    def __init__(self, count, bad=()):
        self.count, self.bad = count, bad

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        from jaxcnn.data.sources import Encoded

        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), row % 256, np.uint8)).save(file, format="PNG")
        data = b"no image" if row in self.bad else file.getvalue()
        return Encoded(data, int(row) % 7, f"number {row}")


def numbered(count, bad=(), on_bad_image="skip"):
    """Return the images of `Numbered`; those in `bad` cannot be decoded."""
    from jaxcnn.data.decode import Images

    examples = Numbered(count, bad)
    return Images(examples, size=2, channels=1, min_size=4, on_bad_image=on_bad_image)


def numbers(batch):
    """Return the numbers that a batch of `numbered` images shows."""
    assert (batch["image"] == batch["image"][:, :1, :1]).all()
    return batch["image"][:, 0, 0, 0].tolist()


def order_of(images, *, seed=0, epoch=0, first=0, batch_size=4, **options):
    """Return the numbers in each batch of an epoch."""
    from jaxcnn.data.stream import training_batches  # late: it imports Grain

    batches = training_batches(
        images, seed=seed, epoch=epoch, first=first, batch_size=batch_size, **options
    )
    return [numbers(batch) for batch in batches]


# MNIST as TFDS downloads it; see also the fixture `originals`.

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def write_mnist(folder, seed):
    """Write 30 + 10 random images as MNIST's four files; return their contents."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    contents = []
    for name, shape in zip(MNIST_FILES, [(30, 28, 28), (30,), (10, 28, 28), (10,)], strict=True):
        values = rng.integers(0, 256 if len(shape) == 3 else 10, shape).astype(np.uint8)
        header = bytes([0, 0, 8, len(shape), *np.array(shape, ">i4").tobytes()])
        (folder / name).write_bytes(gzip.compress(header + values.tobytes()))
        contents.append(values)
    return contents


def url_infos(folder, url):
    """Return what TFDS records of the files in a folder, as if downloaded from `url`."""
    import tensorflow_datasets as tfds  # late: it takes most of a second

    record = tfds.core.download.checksums.compute_url_info
    return {url + file.name: record(file) for file in sorted(folder.iterdir())}


def accept(monkeypatch, name, folder, url="http://127.0.0.1:1/"):
    """Let TFDS take the files in a folder for the original ones of a dataset, from `url`."""
    from jaxcnn.data.tfds_originals import ORIGINALS

    monkeypatch.setattr(ORIGINALS[name].base, "url_infos", url_infos(folder, url))


def assert_same_examples(images, labels, expected_images, expected_labels):
    """Assert that two sets have the same examples, in any order: TFDS shuffles them."""
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.shape == expected_images.shape
    pairs = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    expected = zip(expected_images, expected_labels, strict=True)
    assert pairs == sorted((image.tobytes(), label) for image, label in expected)


def assert_same_dataset(dataset, other):
    """Assert that two datasets are equal, the order of their examples included."""
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(dataset, field), getattr(other, field))
    assert (dataset.name, dataset.class_names) == (other.name, other.class_names)


# What runs leave in their folders.

RESULT = {
    **{"preset": "lenet5-mnist5k", "model": "lenet5-tanh", "num_parameters": 61_706},
    **{"dataset": "mnist5k", "epochs": 2, "steps": 124, "test_loss": 0.1},
    **{"num_test_examples": 1000, "train_seconds": 80.0, "compile_seconds": 2.0},
    **{"examples_per_second": 100.0, "total_seconds": 90.0, "devices": [], "versions": {}},
}


def write_run(folder, config, accuracy, *, finished=True, **result_fields):
    """Write what a run of two epochs of 62 steps leaves, but for its checkpoints."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    lines = [
        {"step": 31, "epoch": 0.5, "train_loss": 2.0},
        {"step": 62, "epoch": 1.0, "train_loss": 1.0, "test_accuracy": accuracy - 0.1},
        {"step": 124, "epoch": 2.0, "train_loss": 0.5, "test_accuracy": accuracy},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        result = RESULT | {"test_accuracy": accuracy, "seed": config.seed}
        result |= {"epochs": config.epochs, **result_fields}
        (folder / "result.json").write_text(json.dumps(result))
