"""Folders of images and prepared sets of TFDS as sources of encoded examples."""

import os
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import CLASSES, open_folder

from jaxcnn.data import datasets
from jaxcnn.data.sources import open_source
from jaxcnn.data.stream import evaluation_batches, load
from jaxcnn.errors import RunError, UserError


def test_open_source_lists_classes_and_their_images(image_folder):
    (image_folder / "train" / "cat" / "notes.txt").touch()
    dataset = open_folder(image_folder)
    assert dataset.class_names == CLASSES
    assert dataset.train_images.shape == (60, 28, 28, 3)
    assert dataset.test_images.shape == (21, 28, 28, 3)
    source = open_source(f"folder:{image_folder}", None)
    assert [source.test[row].label for row in (0, 6, 7, 14, 20)] == [0, 0, 1, 2, 2]
    assert source.train[20].name == str(image_folder / "train" / "dog" / "01.png")
    assert dataset.sample().shape == (60, 28, 28, 3)
    np.testing.assert_array_equal(dataset.sample(), open_folder(image_folder).sample())


def test_open_source_reports_a_file_that_vanished(image_folder):
    dataset = open_folder(image_folder, "skip")
    (image_folder / "val" / "cat" / "60.JPEG").unlink()
    with pytest.raises(RunError, match="cannot read .*60.JPEG: No such file"):
        list(evaluation_batches(dataset.test_images, batch_size=21))


def real_cifar10():
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or not pathlib.Path(data_dir, "cifar10").is_dir():
        pytest.skip("needs the real cifar10 in TFDS_DATA_DIR")
    return datasets.load("cifar10")


@pytest.mark.slow
def test_open_source_streams_what_load_loads():
    whole = real_cifar10()
    streamed = load("tfds:cifar10", size=32, min_size=32, on_bad_image="refuse")
    assert streamed.class_names == whole.class_names
    assert streamed.train_images.shape == whole.train_images.shape
    batch = next(iter(evaluation_batches(streamed.test_images, batch_size=200)))
    np.testing.assert_array_equal(batch["image"], whole.test_images[:200])
    np.testing.assert_array_equal(batch["label"], whole.test_labels[:200])
    for row in (0, 49_999):
        np.testing.assert_array_equal(streamed.train_images[row], whole.train_images[row])


def test_open_source_names_a_missing_set_of_tfds(tmp_path):
    with pytest.raises(UserError, match="no prepared dataset 'imagenet2012' in .*; set `data_dir`"):
        load("tfds:imagenet2012", data_dir=tmp_path, size=8, min_size=1, on_bad_image="skip")
    for name in ("", "oxford-pets", "mnist:3.0"):  # no names of TFDS's
        with pytest.raises(UserError, match=f"no prepared dataset '{name}' in .*TFDS_DATA_DIR to"):
            open_source(f"tfds:{name}", tmp_path)


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        ({"image": None}, ("train", "test"), "has image in train, test; expected image and label"),
        ({"image": None, "label": None}, ("train",), "has image, label in train; expected"),
        ({"image": None, "label": 1}, ("train", "test"), "are 1; expected a ClassLabel"),
    ],
)
def test_open_source_refuses_a_set_without_classes(features, splits, message, monkeypatch):
    builder = SimpleNamespace(info=SimpleNamespace(features=features, splits=splits))
    name = "tensorflow_datasets.core.read_only_builder.builder_from_files"
    monkeypatch.setattr(name, lambda *_, **__: builder)
    monkeypatch.setattr("jaxcnn.data.tfds_builders.has_random_access", lambda _: True)
    with pytest.raises(UserError, match=f"boxes {message}"):
        open_source("tfds:boxes", None)


def test_open_source_names_a_damaged_description(tmp_path):
    (tmp_path / "boxes" / "1.0.0").mkdir(parents=True)
    (tmp_path / "boxes" / "1.0.0" / "features.json").write_text("{}")
    (tmp_path / "boxes" / "1.0.0" / "dataset_info.json").write_text("{")
    for _ in range(2):
        with pytest.raises(UserError, match=f"description of boxes in {tmp_path} is corrupt"):
            open_source("tfds:boxes", tmp_path)
        (tmp_path / "boxes" / "1.0.0" / "features.json").write_text("{")


def test_open_source_names_a_record_that_cannot_be_read(tmp_path, originals):
    datasets.load("mnist", data_dir=tmp_path / "data", manual_dir=originals)
    source = open_source("tfds:mnist", tmp_path / "data")
    (shard,) = (tmp_path / "data" / "mnist" / "3.0.1").glob("*train*")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(RunError, match="^cannot read mnist train, image 3: "):
        source.train[3]
