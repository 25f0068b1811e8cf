"""Boosting: what is filtered, by hand, and three networks in a row."""

import dataclasses

import numpy as np
import pytest

from jaxcnn import PRESETS
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.transforms import Affine
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import load
from jaxcnn.studies.boosting import boost, disagreements, distorted, half_wrong


def test_half_wrong_keeps_all_wrong_answers_and_as_many_right_ones():
    correct = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
    for seed in range(5):
        rows = half_wrong(correct, np.random.default_rng(seed))
        assert len(rows) == 4 and {1, 4} <= {*rows} and correct[rows].sum() == 2
        assert rows.tolist() == sorted({*rows})
    chosen = {tuple(half_wrong(correct, np.random.default_rng(seed))) for seed in range(20)}
    assert len(chosen) > 5  # other right ones for other seeds


def test_half_wrong_of_more_wrong_than_right_answers():
    rows = half_wrong(np.array([0, 0, 1, 0], bool), np.random.default_rng(0))
    assert len(rows) == 2 and 2 in rows
    assert not len(half_wrong(np.ones(4, bool), np.random.default_rng(0)))


def test_disagreements_by_hand():
    rows = disagreements(np.array([3, 1, 4, 1, 5]), np.array([3, 2, 4, 0, 5]))
    assert rows.tolist() == [1, 3]


def test_distorted_images_differ_by_copy_and_by_seed():
    images = np.random.default_rng(0).integers(256, size=(5, 8, 8, 1), dtype=np.uint8)
    copies = distorted(images, Affine(translate=2.0), seed=1, copies=2)
    assert copies.shape == (10, 8, 8, 1) and copies.dtype == np.uint8
    assert (copies[:5] != copies[5:]).any()
    assert (copies != distorted(images, Affine(translate=2.0), seed=2, copies=2)).any()
    np.testing.assert_array_equal(distorted(images, Affine(), seed=1), images)


def digits(count, noise):
    """Return images of a bright row, in noise, with the number of the row as the class."""
    rng = np.random.default_rng(count)
    labels = rng.integers(10, size=count, dtype=np.int32)
    images = rng.integers(noise, size=(count, 28, 28, 1), dtype=np.uint8)
    images[np.arange(count), 4 + 2 * labels] += 60
    return images, labels


def boosted(folder, noise=140):
    dataset = Dataset("mnist5k", *digits(400, noise), *digits(50, noise), tuple("0123456789"))
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config, model="linear", epochs=4, batch_size=8, preset="custom"
    )
    return boost(config, dataset, folder, transform=Affine(degrees=10.0), copies=2)


@pytest.mark.slow
def test_boost_trains_three_networks_and_adds_their_probabilities(tmp_path):
    images, _ = digits(50, 140)
    scores = boosted(tmp_path)(images)
    runs = [load(tmp_path / name) for name in ("first", "second", "third")]
    expected = sum(np.exp(run.log_probs(images)) for run in runs)
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    np.testing.assert_allclose(scores.sum(-1), 3, rtol=1e-5)
    steps = [run.trained.step for run in runs]
    assert steps[0] == 4 * 50 and 0 < steps[1] and 0 < steps[2]
    kernels = [np.asarray(run.trained.params["output"]["kernel"]) for run in runs]
    assert (kernels[0] != kernels[1]).any() and (kernels[1] != kernels[2]).any()
    np.testing.assert_array_equal(boosted(tmp_path)(images), scores)  # the runs are finished


@pytest.mark.slow
def test_boost_refuses_patterns_without_a_wrong_answer(tmp_path):
    with pytest.raises(UserError, match="no pattern is left for the second network of 800"):
        boosted(tmp_path, noise=1)
