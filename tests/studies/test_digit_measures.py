"""Figures 9 and 10 of 1998: test error and rejection, from definitions and scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxcnn.classifiers import nearest, rbf
from jaxcnn.classifiers.linear import linear
from jaxcnn.config import TrainConfig
from jaxcnn.data import geometry
from jaxcnn.data.transforms import Affine, CenterCrop, Deslant
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import load
from jaxcnn.interop.trained import load_run
from jaxcnn.models.mlp import MLP
from jaxcnn.studies import digit_measures as measures
from jaxcnn.workdir.folder import read_result

pytestmark = pytest.mark.usefixtures("rows_as_mnist5k")


def rejection(scores, labels):
    """Return the smallest percentage to reject so that at most 0.5 % of the others are wrong."""
    second, first = np.sort(scores)[:, -2:].T
    wrong = (scores.argmax(-1) != labels)[np.argsort(first - second)]
    rejected = (k for k in range(len(labels)) if wrong[k:].mean() <= 0.005)
    return 100 * next(rejected, len(labels)) / len(labels)


@pytest.mark.slow
def test_error_and_rejection_of_a_run(run_of_rows, rows):
    measured = measures.error_and_rejection(run_of_rows)
    log_probs = load(run_of_rows).log_probs(rows.test_images)
    accuracy = read_result(run_of_rows)["test_accuracy"]
    assert measured["test_error"] == pytest.approx(100 * (1 - accuracy)) and accuracy < 1
    assert measured["rejection"] == pytest.approx(rejection(log_probs, rows.test_labels))
    assert 0 < measured["rejection"] < 100 and measured["num_test_examples"] == 90


@pytest.mark.slow
def test_closed_form_preprocesses_the_images_of_both_splits(rows):
    transforms = (Affine(degrees=90.0), Deslant(), CenterCrop(20))
    pixels = {"pixel_mean": (0.2,), "pixel_std": (0.5,)}
    config = TrainConfig(model="linear", dataset="mnist5k", transforms=transforms, **pixels)

    def prepared(images):
        return np.asarray(geometry.center_crop(geometry.deslant(images), size=20)) / 127.5 - 0.4

    scores = linear(prepared(rows.train_images), rows.train_labels)(prepared(rows.test_images))
    error = 100 * (scores.argmax(-1) != rows.test_labels).mean()
    measured = measures.closed_form("linear", config)
    assert measured["test_error"] == pytest.approx(error) and 0 < error < 60
    assert measured["rejection"] == pytest.approx(rejection(scores, rows.test_labels))


def test_closed_form_is_fitted_again_only_if_it_depends_on_the_seed(rows, monkeypatch):
    seeds = []

    def classifier(images, labels, *, num_classes, seed=None):
        seeds.append(seed)
        return lambda images: np.eye(num_classes)[np.arange(len(images)) % 10]

    monkeypatch.setattr(nearest, "nearest_neighbors", classifier)
    monkeypatch.setattr(rbf, "rbf", classifier)
    for name in ("nearest_neighbors", "rbf"):
        for seed in (3, 4):
            config = TrainConfig(model="linear", dataset="mnist5k", train_examples=7, seed=seed)
            measures.closed_form(name, config)
    assert seeds == [None, 3, 4]


@pytest.mark.slow
def test_last_layer_by_neighbors_votes_on_the_features_before_the_last_layer(run_of_rows, rows):
    trained = load_run(run_of_rows)
    mean, std = trained.config.pixel_mean[0], trained.config.pixel_std[0]

    def features(images):
        layer = trained.params["hidden1"]
        x = (images.reshape(len(images), -1) / 255 - mean) / std
        return np.tanh((x @ layer["kernel"] + layer["bias"]) * 2 / 3)

    theirs = KNeighborsClassifier(3).fit(features(rows.train_images), rows.train_labels)
    votes = theirs.predict_proba(features(rows.test_images))
    is_clear = np.sort(votes)[:, -2] < votes.max(1)
    wrong = votes.argmax(1) != rows.test_labels
    measured = measures.last_layer_by_neighbors(run_of_rows)
    least, ties = 100 * wrong[is_clear].sum() / 90, 100 * (~is_clear).sum() / 90
    assert least <= measured["test_error"] <= least + ties and ties < 5
    on_pixels = KNeighborsClassifier(3).fit(rows.train_images.reshape(400, -1), rows.train_labels)
    assert on_pixels.score(rows.test_images.reshape(90, -1), rows.test_labels) < 1 - least / 100


@pytest.mark.slow
def test_last_layer_by_neighbors_refuses_a_network_without_a_head(run_of_rows, monkeypatch):
    monkeypatch.setattr(MLP, "head", None)
    with pytest.raises(UserError, match="mlp-300 does not name its last layer"):
        measures.last_layer_by_neighbors(run_of_rows)
