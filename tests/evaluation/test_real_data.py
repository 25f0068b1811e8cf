"""Shipped weights on the real test images: the accuracy of each card, and photos of digits."""

import os
import pathlib

import numpy as np
import pytest
from helpers import drawn_page

import jaxcnn
from jaxcnn.data import datasets
from jaxcnn.interop.pretrained import cards

pytestmark = pytest.mark.slow


def real_test_set(name):
    """Return the real test images and labels of a dataset."""
    data_dir = os.environ.get("TFDS_DATA_DIR", "")
    if not (data_dir and (pathlib.Path(data_dir) / name).is_dir()):
        pytest.skip(f"needs the real {name} in TFDS_DATA_DIR")
    dataset = datasets.load(name)
    return dataset.test_images, dataset.test_labels


@pytest.mark.parametrize("name", sorted(cards()))
def test_pretrained_weights_have_the_accuracy_of_their_card(name):
    card = cards()[name]
    images, labels = real_test_set(card["dataset"])
    log_probs = jaxcnn.load(pretrained=name).log_probs(images)
    assert (log_probs.argmax(-1) == labels).sum() == card["num_correct"]
    assert len(labels) == card["num_test_examples"] == 10_000
    loss = -log_probs[np.arange(len(labels)), labels].mean(dtype=float)
    assert loss == pytest.approx(card["test_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["lenet5-mnist", "lenet5-1998-mnist", "lenet5-modern-mnist"])
def test_digits_drawn_on_pages_are_recognized(name):
    images, labels = real_test_set("mnist")
    rng = np.random.default_rng(0)
    rows = rng.choice(len(images), 500, replace=False)
    pages = [
        drawn_page(images[row, ..., 0], rng, size=int(rng.integers(40, 401)), noise=2.0)
        for row in rows
    ]
    predictions = jaxcnn.load(pretrained=name).predict(pages)
    accuracy = (predictions.log_probs.argmax(-1) == labels[rows]).mean()
    print(f"{name}: {accuracy:.1%} of 500 pages")
    assert accuracy >= 0.97
