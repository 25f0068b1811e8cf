"""The linear and the pairwise linear classifier."""

import itertools

import numpy as np
from helpers import clustered

from jaxcnn.classifiers.linear import linear, pairwise_linear


def units(images, targets):
    """Return the least squares solution for the pixels and a bias."""
    flat = np.hstack([images.reshape(len(images), -1), np.ones((len(images), 1))])
    return np.linalg.lstsq(flat, targets, rcond=None)[0]


def outputs(images, weights):
    return images.reshape(len(images), -1) @ weights[:-1] + weights[-1]


def test_linear_is_the_least_squares_solution():
    (images, labels), (others, other_labels) = clustered(300, seed=0), clustered(40, seed=1)
    expected = outputs(others, units(images, 2.0 * (labels[:, None] == np.arange(4)) - 1))
    scores = linear(images, labels, num_classes=4)(others)
    np.testing.assert_allclose(scores, expected, atol=0.02)
    assert (scores.argmax(-1) == other_labels).mean() > 0.6


def test_pairwise_linear_sums_units_of_pairs_by_hand():
    (images, labels), (others, _) = clustered(300, seed=0), clustered(40, seed=1)
    expected = np.zeros((40, 4))
    for i, j in itertools.combinations(range(4), 2):
        pair = (labels == i) | (labels == j)
        unit = outputs(others, units(images[pair], np.where(labels[pair] == i, 1.0, -1.0)))
        unit = np.sign(unit)
        expected[:, i] += unit
        expected[:, j] -= unit
    scores = pairwise_linear(images, labels, num_classes=4)(others)
    np.testing.assert_array_equal(scores, expected)


def test_linear_classifiers_do_not_depend_on_the_unit_of_pixels():
    images, labels = clustered(300, seed=0)
    for fit in (linear, pairwise_linear):
        scores = fit(images, labels, num_classes=4)(images)
        scaled = fit(255 * images, labels, num_classes=4)(255 * images)
        np.testing.assert_allclose(scaled, scores, atol=0.05)
