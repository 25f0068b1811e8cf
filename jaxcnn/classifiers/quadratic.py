"""Principal components with a quadratic classifier, of figure 9 of 1998."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcnn.classifiers import least_squares
from jaxcnn.classifiers.least_squares import Images, Scores, in_chunks, with_one

RIDGE = 1e-6


def principal_components(
    images: Images, num_components: int
) -> Float[np.ndarray, "pixels components"]:
    """Return the directions of the largest variance, scaled so that coordinates have variance 1.

    Returns:
      The directions, that of the largest variance of the pixels first.

    Raises:
      ValueError: fewer directions have a variance.
    """
    flat = in_chunks(with_one)
    gram, _ = least_squares.sums_of_products(flat, images, np.zeros((len(images), 0)))
    count = gram[-1, -1]
    mean = gram[-1, :-1] / count
    variances, directions = np.linalg.eigh(gram[:-1, :-1] / count - np.outer(mean, mean))
    variances, directions = variances[::-1][:num_components], directions[:, ::-1]
    if len(variances) < num_components or variances[-1] <= 1e-9 * variances[0]:
        raise ValueError(
            f"`num_components` is {num_components}; expected at most the number of directions in "
            "which the images differ; choose fewer"
        )
    return directions[:, :num_components] / np.sqrt(variances)


def pca_quadratic(
    images: Images,
    labels: Int[np.ndarray, " examples"],
    *,
    num_components: int = 40,
    num_classes: int = 10,
) -> Scores:
    """Fit a polynomial of degree 2 in principal components: 821 inputs for 40 components.

    The inputs are the products of all pairs of components, squares included, and 1. The image is
    projected as it is: without the mean image, the products would contain no linear part, and the
    error is larger. The weights are fitted by least squares.

    Args:
      images: training images; their pixels may have any unit.
      labels: their classes.
      num_components: number of principal components.
      num_classes: number of classes.

    Returns:
      Function from images to a score for each class.

    Raises:
      ValueError: the images differ in fewer directions than `num_components`.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section III.C.
    """
    directions = jnp.asarray(principal_components(images, num_components), jnp.float32)
    rows, columns = np.triu_indices(num_components)

    def products(x: Array) -> Array:
        components = jnp.matmul(x, directions, precision="highest")
        return components[:, rows] * components[:, columns]

    return least_squares.fit(products, images, labels, num_classes, RIDGE)
