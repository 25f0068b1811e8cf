"""A finished run on a small dataset, which several studies measure."""

import dataclasses

import numpy as np
import pytest

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.data.datasets import DATASETS, Dataset
from jaxcnn.data.transforms import Affine


def _rows(count):
    """Return images of a bright row, in noise, with the number of the row as the class."""
    rng = np.random.default_rng(count)
    labels = rng.integers(10, size=count, dtype=np.int32)
    images = rng.integers(140, size=(count, 28, 28, 1), dtype=np.uint8)
    images[np.arange(count), 4 + 2 * labels] += 60
    return images, labels


@pytest.fixture(scope="session")
def rows():
    """400 images to train on and 90 to test on, each of a bright row in noise."""
    return Dataset("mnist5k", *_rows(400), *_rows(90), tuple("0123456789"))


@pytest.fixture(scope="session")
def run_of_rows(rows, tmp_path_factory):
    """The folder of a run of a network with 300 hidden units on `rows`, rotated at random."""
    folder = tmp_path_factory.mktemp("runs") / "rows"
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        preset="custom",
        model="mlp-300",
        transforms=(Affine(degrees=10.0),),
        epochs=4,
        batch_size=8,
        workdir=str(folder),
    )
    train_and_evaluate(config, dataset=rows)
    return folder


@pytest.fixture
def rows_as_mnist5k(rows, monkeypatch):
    """Let `rows` be the dataset of the name "mnist5k"."""
    monkeypatch.setitem(DATASETS, "mnist5k", lambda *_: rows)
