"""The k nearest neighbours, compared with scikit-learn."""

import numpy as np
import pytest
from helpers import clustered
from sklearn.neighbors import KNeighborsClassifier

from jaxcnn.classifiers import least_squares
from jaxcnn.classifiers.nearest import nearest, nearest_neighbors


@pytest.mark.parametrize("k", [1, 3, 5])
def test_nearest_neighbors_vote_as_in_scikit_learn(k, monkeypatch):
    monkeypatch.setattr(least_squares, "CHUNK", 16)  # several chunks, the last one smaller
    (images, labels), (others, _) = clustered(200, seed=0), clustered(50, seed=1)
    theirs = KNeighborsClassifier(k, algorithm="brute").fit(images.reshape(200, -1), labels)
    expected = k * theirs.predict_proba(others.reshape(50, -1))
    scores = nearest_neighbors(images, labels, k=k, num_classes=4)(others)
    np.testing.assert_array_equal(np.floor(scores), expected)


def test_nearest_neighbor_decides_between_equal_votes():
    images = np.array([[0], [3], [10]], np.float32).reshape(3, 1, 1, 1)
    scores = nearest_neighbors(images, np.array([2, 0, 1]), num_classes=3)
    queries = np.array([[1], [2], [9]], np.float32).reshape(3, 1, 1, 1)
    assert scores(queries).argmax(-1).tolist() == [2, 0, 1]


def test_nearest_rows_are_in_the_order_of_their_distance():
    rng = np.random.default_rng(0)
    x, stored = (rng.normal(size=(count, 5)).astype(np.float32) for count in (8, 30))
    expected = np.argsort(np.square(x[:, None] - stored).sum(-1), axis=1)[:, :4]
    np.testing.assert_array_equal(nearest(x, stored, 4), expected)


@pytest.mark.parametrize("k", [0, 4])
def test_nearest_neighbors_refuse_more_neighbors_than_images(k):
    with pytest.raises(ValueError, match=f"k is {k}; expected 1 to 3"):
        nearest_neighbors(np.zeros((3, 2, 2, 1)), np.zeros(3, int), k=k)


def test_nearest_neighbor_scores_by_the_ratio_of_distances_within_equal_votes():
    images = np.array([[0], [1], [2], [10], [30]], np.float32).reshape(5, 1, 1, 1)
    scores = nearest_neighbors(images, np.array([0, 0, 0, 1, 2]), num_classes=4)
    queries = np.array([[-2], [-6], [0]], np.float32).reshape(3, 1, 1, 1)
    expected = [[3.5, 1 / 12, 1 / 32, 0], [3.5, 3 / 16, 1 / 12, 0], [3.5, 0, 0, 0]]
    np.testing.assert_allclose(scores(queries), expected, atol=1e-6)
