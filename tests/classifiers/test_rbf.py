"""Radial basis functions, compared with scikit-learn."""

import numpy as np
import pytest
from helpers import clustered
from sklearn.cluster import KMeans
from sklearn.linear_model import LinearRegression
from sklearn.metrics.pairwise import rbf_kernel

from jaxcnn.classifiers.rbf import k_means, rbf


def test_k_means_finds_the_centers_of_scikit_learn():
    images, _ = clustered(200, seed=0)
    x = images.reshape(200, -1)
    theirs = KMeans(6, init=x[:6], n_init=1, max_iter=100, tol=0).fit(x)
    centers, error = k_means(x, x[:6], iterations=100)
    np.testing.assert_allclose(centers, theirs.cluster_centers_, atol=1e-5)
    np.testing.assert_allclose(error, theirs.inertia_ / 200, rtol=1e-5)


def test_k_means_leaves_a_center_without_examples_where_it_is():
    x = np.array([[0.0], [2.0]], np.float32)
    centers, error = k_means(x, np.array([[1.0], [9.0]], np.float32))
    assert centers.tolist() == [[1], [9]] and error == 1


def test_rbf_is_a_regression_on_gaussians_of_the_centers():
    (images, labels), (others, _) = clustered(200, seed=0), clustered(40, seed=1)
    few = np.concatenate([np.flatnonzero(labels == number)[:10] for number in range(4)])
    flat, queries = images[few].reshape(40, -1), others.reshape(40, -1)
    centers, errors, rng = [], [], np.random.default_rng(3)
    for x in flat.reshape(4, 10, -1):
        first = x[np.sort(rng.choice(10, 4, replace=False))]
        theirs = KMeans(4, init=first, n_init=1, max_iter=30, tol=0).fit(x)
        centers.append(theirs.cluster_centers_)
        errors.append(theirs.inertia_)
    gamma = 1 / (2 * sum(errors) / 40)

    def gaussians(x):
        return rbf_kernel(x, np.concatenate(centers), gamma)

    targets = 2.0 * (labels[few][:, None] == np.arange(4)) - 1
    expected = LinearRegression().fit(gaussians(flat), targets).predict(gaussians(queries))
    scores = rbf(images[few], labels[few], centers_per_class=4, num_classes=4, seed=3)(others)
    np.testing.assert_allclose(scores, expected, atol=0.02)


def test_rbf_refuses_classes_with_fewer_images_than_centers():
    images, labels = clustered(20, seed=0)
    with pytest.raises(ValueError, match=r"class 0 has \d+ images; expected at least 15"):
        rbf(images, labels, centers_per_class=15, num_classes=4)
