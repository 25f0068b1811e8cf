"""Principal components and a polynomial of degree 2, compared with scikit-learn."""

import numpy as np
import pytest
from helpers import clustered
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from jaxcnn.classifiers.quadratic import pca_quadratic, principal_components


def test_principal_components_are_those_of_scikit_learn():
    images, _ = clustered(300, seed=0)
    directions = principal_components(images, 6)
    theirs = PCA(6).fit(images.reshape(300, -1))
    expected = theirs.components_.T / np.sqrt(theirs.explained_variance_ * 299 / 300)
    signs = np.sign((directions * expected).sum(0))
    np.testing.assert_allclose(directions * signs, expected, atol=1e-4)


def test_pca_quadratic_is_the_regression_on_products_of_components():
    (images, labels), (others, _) = clustered(300, seed=0), clustered(40, seed=1)
    pca = PCA(5).fit(images.reshape(300, -1))

    def products(images):
        x = images.reshape(len(images), -1) @ pca.components_.T
        return np.stack([x[:, i] * x[:, j] for i in range(5) for j in range(i, 5)], axis=1)

    targets = 2.0 * (labels[:, None] == np.arange(4)) - 1
    expected = LinearRegression().fit(products(images), targets).predict(products(others))
    scores = pca_quadratic(images, labels, num_components=5, num_classes=4)(others)
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_principal_components_refuse_more_than_the_images_have():
    images = np.zeros((8, 3, 3, 1), np.float32)
    images[:, 0, 0, 0] = np.arange(8)  # one direction
    with pytest.raises(ValueError, match="`num_components` is 2; expected at most"):
        principal_components(images, 2)
