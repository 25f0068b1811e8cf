"""What the closed forms share: chunks, distances, sums."""

import jax.numpy as jnp
import numpy as np

from jaxcnn.classifiers import least_squares


def test_squared_distances_by_loop():
    rng = np.random.default_rng(0)
    x, centers = rng.normal(size=(5, 7)), rng.normal(size=(3, 7))
    x[2] = centers[1]
    actual = least_squares.squared_distances(jnp.float32(x), jnp.float32(centers))
    expected = [[((a - b) ** 2).sum() for b in centers] for a in x]
    np.testing.assert_allclose(actual, expected, atol=1e-5)
    assert (actual >= 0).all()


def test_sums_of_products_do_not_depend_on_the_chunks(monkeypatch):
    rng = np.random.default_rng(0)
    images, values = rng.normal(size=(10, 2, 2, 1)), rng.normal(size=(10, 3))
    flat = images.reshape(10, 4).astype(np.float32).astype(np.float64)
    for chunk in (4, 100):
        monkeypatch.setattr(least_squares, "CHUNK", chunk)
        features = least_squares.in_chunks(lambda x: x)
        gram, moments = least_squares.sums_of_products(features, images, values)
        np.testing.assert_allclose(gram, flat.T @ flat)
        np.testing.assert_allclose(moments, flat.T @ values)


def test_solve_gives_no_weight_to_a_pixel_that_is_always_0():
    gram = np.diag([4.0, 0, 2])  # two pixels and the bias, over two images
    weights = least_squares.solve(gram, np.array([[2.0], [0], [1]]), ridge=1e-6)
    np.testing.assert_allclose(weights, [[0.5], [0], [0.5]], atol=1e-5)
