"""MNIST and CIFAR-10 by TFDS: the real data if there is any, and random images in its formats."""

import functools
import hashlib
import importlib.util
import io
import json
import os
import pathlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from helpers import (
    MNIST_FILES,
    accept,
    assert_same_dataset,
    assert_same_examples,
    run_python,
    write_mnist,
)

from jaxcnn.data import datasets, sources, tfds_builders
from jaxcnn.data.tfds_originals import ORIGINALS
from jaxcnn.errors import UserError


def real_data(name):
    """Where TFDS has the real data; skips the test where it has none."""
    data_dir = pathlib.Path(os.environ.get("TFDS_DATA_DIR", ""))
    if not os.environ.get("TFDS_DATA_DIR") or not (data_dir / name).is_dir():
        pytest.skip(f"needs the real {name} in TFDS_DATA_DIR")
    return data_dir


def real_mnist_files():
    """The folder with the four original MNIST files; skips the test where there is none."""
    folder = real_data("mnist").parent / "raw" / "mnist"
    if not folder.is_dir():
        pytest.skip("needs the original MNIST files in TFDS_DATA_DIR/../raw/mnist")
    return folder


def test_builders_prepare_mnist_from_manual_dir(tmp_path, monkeypatch):
    folder = tmp_path / "originals"
    train_images, train_labels, test_images, test_labels = write_mnist(folder, seed=0)
    accept(monkeypatch, "mnist", folder)
    dataset = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=folder)
    assert_same_examples(
        dataset.train_images, dataset.train_labels, train_images[..., None], train_labels
    )
    assert_same_examples(
        dataset.test_images, dataset.test_labels, test_images[..., None], test_labels
    )
    assert dataset.class_names == tuple("0123456789")
    # TFDS itself finds and reads what was prepared.
    source = tfds.builder("mnist", data_dir=tmp_path / "data").as_data_source("train")
    images = np.stack([example["image"] for example in source])
    np.testing.assert_array_equal(images, dataset.train_images)


def test_builders_name_a_file_missing_from_manual_dir(tmp_path, originals):
    (originals / MNIST_FILES[1]).unlink()
    with pytest.raises(UserError, match=f"{MNIST_FILES[1]} does not exist"):
        datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)


def test_builders_refuse_a_fifo_in_manual_dir(tmp_path, originals):
    (originals / MNIST_FILES[1]).unlink()
    os.mkfifo(originals / MNIST_FILES[1])
    with pytest.raises(UserError, match=f"{MNIST_FILES[1]} cannot be used: it is a fifo; expected"):
        datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)


@pytest.mark.parametrize("route", ["manual_dir", "download"])
def test_builders_refuse_a_tampered_file(tmp_path, monkeypatch, originals, serve, route):
    url = serve(originals)
    accept(monkeypatch, "mnist", originals, url)
    manual_dir = originals if route == "manual_dir" else None
    tampered = originals / MNIST_FILES[0]
    original = tampered.read_bytes()
    tampered.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(UserError) as error:
        datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=manual_dir)
    message = str(error.value)
    assert tampered.name in message and "\n" not in message
    assert hashlib.sha256(original).hexdigest() in message
    assert hashlib.sha256(tampered.read_bytes()).hexdigest() in message
    assert not list((tmp_path / "data" / "mnist").iterdir())

    tampered.write_bytes(original)
    dataset = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=manual_dir)
    assert len(dataset.train_images) == 30


def test_builders_say_what_to_do_without_data_and_network(tmp_path, monkeypatch, originals):
    accept(monkeypatch, "mnist", originals, "http://127.0.0.1:1/")  # nobody listens there
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", pytest.fail)  # retries
    with pytest.raises(UserError) as error:
        datasets.load("mnist", data_dir=tmp_path / "data")
    message = str(error.value)
    for part in ("mnist/3.0.1", str(tmp_path / "data"), "127.0.0.1", "`data_dir`", "`manual_dir`"):
        assert part in message
    assert "mnist5k" in message and "\n" not in message
    assert not (tmp_path / "data").exists()


def test_builders_use_a_finished_download(tmp_path, monkeypatch, originals, serve):
    url = serve(originals)
    accept(monkeypatch, "mnist", originals, url)
    builder = tfds_builders.builder_class("mnist")(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(max_examples_per_split=0)  # download only
    builder._make_download_manager(None, config).download(list(builder.url_infos))
    monkeypatch.setattr(
        tfds_builders.requests, "head", lambda *args, **kwargs: pytest.fail("asked the network")
    )
    assert len(datasets.load("mnist", data_dir=tmp_path / "data").train_images) == 30


def test_builders_may_prepare_in_two_processes(tmp_path, monkeypatch, originals):
    load = functools.partial(
        datasets.load, "mnist", data_dir=tmp_path / "data", manual_dir=originals
    )
    original = ORIGINALS["mnist"]

    def another_comes_first(*contents):
        monkeypatch.setitem(ORIGINALS, "mnist", original)
        load()
        return original.parse(*contents)

    monkeypatch.setitem(ORIGINALS, "mnist", original._replace(parse=another_comes_first))
    assert len(load().train_images) == 30
    assert os.listdir(tmp_path / "data" / "mnist") == ["3.0.1"]


def test_prepared_builder_names_an_incomplete_dataset(tmp_path, originals):
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    with pytest.raises(UserError, match=f"{folder} is incomplete: it has no dataset_info.json"):
        datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)


@pytest.mark.parametrize("text", ["", "{"])
def test_prepared_builder_names_a_damaged_description(text, tmp_path, originals):
    folder = tmp_path / "mnist" / "3.0.1"
    datasets.load("mnist", data_dir=tmp_path, manual_dir=originals)
    (folder / "dataset_info.json").write_text(text)
    with pytest.raises(UserError, match=f"^{folder} is corrupt; remove that folder"):
        tfds_builders.prepared_builder("mnist", "3.0.1", tmp_path, tmp_path / "beside", None)


def test_read_split_names_damaged_data(tmp_path, originals):
    datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    [shard] = folder.glob("*test*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 50 : len(content) // 25] = bytes(len(content) // 50)
    shard.write_bytes(content)
    with pytest.raises(UserError, match=f"{folder} is corrupt"):
        datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)


def test_open_source_streams_a_prepared_set(tmp_path, originals):
    prepared = datasets.load("mnist", data_dir=tmp_path, manual_dir=originals)
    source = sources.open_source("tfds:mnist", str(tmp_path))
    assert source.class_names == prepared.class_names and source.channels == 1
    for stream, split in ((source.train, "train"), (source.test, "test")):
        stored = [stream[row] for row in range(len(stream))]
        images = [np.asarray(PIL.Image.open(io.BytesIO(example.image))) for example in stored]
        labels = np.array([example.label for example in stored], np.int32)
        expected = getattr(prepared, f"{split}_images"), getattr(prepared, f"{split}_labels")
        assert_same_examples(np.array(images)[..., None], labels, *expected)
        assert stored[3].name == f"mnist {split}, image 3"


def test_open_source_refuses_other_records_and_splits(tmp_path, originals):
    datasets.load("mnist", data_dir=tmp_path, manual_dir=originals)
    folder = tmp_path / "mnist" / "3.0.1"
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match=f"{folder} holds records that only TensorFlow reads"):
        sources.open_source("tfds:mnist", str(tmp_path))
    train_only = {"splits": [split for split in info["splits"] if split["name"] == "train"]}
    (folder / "dataset_info.json").write_text(json.dumps(info | train_only))
    with pytest.raises(UserError, match="mnist has .* in train; expected image and label, in"):
        sources.open_source("tfds:mnist", str(tmp_path))


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is installed"
)
def test_builders_prepare_beside_tfrecord_without_tensorflow(tmp_path, originals):
    folder = tmp_path / "data" / "mnist" / "3.0.1"
    prepared = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
    for shard in folder.glob("*array_record*"):
        shard.rename(folder / shard.name.replace("array_record", "tfrecord"))
    before = {file: file.read_bytes() for file in folder.iterdir()}

    dataset = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    assert_same_dataset(dataset, prepared)
    assert (tmp_path / "data" / "array_record" / "mnist" / "3.0.1").is_dir()
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    # Now it is there, and the original files are needed no more.
    assert_same_dataset(datasets.load("mnist", data_dir=tmp_path / "data"), prepared)


def test_builders_read_tfrecord_with_tensorflow(tmp_path, originals):
    pytest.importorskip("tensorflow")
    tfds_builders.builder_class("mnist")(data_dir=tmp_path / "tfrecord").download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=originals), file_format="tfrecord"
    )
    prepared = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    assert_same_dataset(datasets.load("mnist", data_dir=tmp_path / "tfrecord"), prepared)
    assert not (tmp_path / "tfrecord" / "array_record").exists()


@pytest.mark.slow
def test_builders_prepare_real_mnist_without_tensorflow(tmp_path, serve):
    data_dir, url = real_data("mnist"), serve(real_mnist_files())
    code = """
import importlib.util
import sys

class NoTensorFlow:
    def find_spec(name, path, target=None):
        assert name.partition(".")[0] != "tensorflow", "TensorFlow is imported"

ask = importlib.util.find_spec  # asking whether it is installed is allowed, and answered with no
importlib.util.find_spec = lambda name, *args: name != "tensorflow" and ask(name, *args) or None
sys.meta_path.insert(0, NoTensorFlow)
import numpy as np
from jaxcnn.data import datasets, tfds_builders
from jaxcnn.data.tfds_originals import ORIGINALS
tfds_builders.tfds.disable_progress_bar()
data_dir, url, real_data_dir = sys.argv[1:]
MNIST = ORIGINALS["mnist"].base
MNIST.url_infos = {i.replace(MNIST.URL, url): info for i, info in MNIST.url_infos.items()}
mnist = datasets.load("mnist", data_dir=data_dir)
assert mnist.train_images.shape == (60000, 28, 28, 1) and mnist.train_labels.shape == (60000,)
assert abs(mnist.train_images.mean() / 255 - 0.1307) < 5e-5

theirs = tfds_builders.builder_class("mnist")(data_dir=real_data_dir)
images, labels = tfds_builders.read_split(theirs, "test")
np.testing.assert_array_equal(mnist.test_images, images)
np.testing.assert_array_equal(mnist.test_labels, labels)

train = {image.tobytes(): label for image, label in zip(mnist.train_images, mnist.train_labels)}
mnist5k = datasets.load("mnist5k")
for image, label in zip(mnist5k.test_images, mnist5k.test_labels):
    assert train[image.tobytes()] == label
"""
    run_python(code, tmp_path, url, data_dir)


@pytest.mark.parametrize(
    ("name", "mean", "counts"),
    [
        ("mnist", [0.1325], [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("cifar10", [0.4942, 0.4851, 0.4504], [1000] * 10),
    ],
)
def test_read_split_reads_what_tfds_prepared(name, mean, counts):
    builder = tfds_builders.builder_class(name)(data_dir=real_data(name))
    images, labels = tfds_builders.read_split(builder, "test")
    np.testing.assert_allclose(images.mean((0, 1, 2)) / 255, mean, atol=5e-5)
    np.testing.assert_array_equal(np.bincount(labels), counts)
