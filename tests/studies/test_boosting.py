"""Boosting: what is filtered, by hand, and three networks in a row."""

import shutil

import numpy as np
import pytest
from helpers import write_run

from jaxcnn import train_and_evaluate
from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import Affine
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import load
from jaxcnn.studies import boosting
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


@pytest.fixture
def given(monkeypatch):
    """The datasets that networks are trained on, in order."""
    datasets = []

    def train(config, *, dataset):
        datasets.append(dataset)
        return train_and_evaluate(config, dataset=dataset)

    monkeypatch.setattr(boosting, "train_and_evaluate", train)
    return datasets


@pytest.mark.slow
def test_boost_trains_on_what_the_networks_before_find_hard(
    run_of_rows, rows_as_mnist5k, rows, given, tmp_path
):
    first = shutil.copytree(run_of_rows, tmp_path / "first")
    scores = boost(first, copies=3)(rows.test_images)
    networks = [load(first), *(load(first / "boosting" / name) for name in ("second", "third"))]
    log_probs = [network.log_probs(rows.test_images) for network in networks]
    np.testing.assert_allclose(scores, sum(map(np.exp, log_probs)), rtol=1e-5)

    def answers(network, dataset):
        return networks[network].log_probs(dataset.train_images).argmax(-1)

    second, third = given
    correct = answers(0, second) == second.train_labels
    assert 2 * correct.sum() == len(correct) > 8
    assert (answers(0, third) != answers(1, third)).all() and len(third.train_labels) > 4
    steps = [network.trained.step for network in networks]
    assert steps[0] == 200 and steps[1:] == pytest.approx([200, 200], rel=0.2)

    shutil.rmtree(first / "boosting" / "third")
    np.testing.assert_array_equal(boost(first, copies=3)(rows.test_images), scores)
    assert len(given) == 3  # the third network alone is trained again
    np.testing.assert_array_equal(given[2].train_images, third.train_images)


@pytest.mark.slow
def test_boost_refuses_patterns_without_a_hard_one(run_of_rows, rows_as_mnist5k, monkeypatch):
    monkeypatch.setattr(boosting, "half_wrong", lambda correct, rng: np.flatnonzero(~correct)[:0])
    with pytest.raises(UserError, match="no pattern is left for the second network of 400"):
        boost(run_of_rows, copies=1)


def test_boost_refuses_a_run_without_distortions(tmp_path, rows_as_mnist5k, monkeypatch):
    write_run(tmp_path / "run", TrainConfig(model="linear", dataset="mnist5k"), 0.9)
    monkeypatch.setattr(boosting.predict, "load", lambda run: None)
    with pytest.raises(UserError, match="the transforms of the run have no `affine`"):
        boost(tmp_path / "run", copies=1)
