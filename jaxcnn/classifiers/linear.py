"""The linear and the pairwise linear classifier of figure 9 of 1998, in closed form.

References:
  LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998,
  section III.C.
"""

from __future__ import annotations

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxcnn.classifiers import least_squares
from jaxcnn.classifiers.least_squares import Images, Scores, with_one

RIDGE = 1e-2


def linear(
    images: Images, labels: Int[np.ndarray, " examples"], *, num_classes: int = 10
) -> Scores:
    """Fit the linear classifier by least squares: 7,850 parameters for 28x28 pixels, 10 classes.

    Args:
      images: training images; their pixels may have any unit.
      labels: their classes.
      num_classes: number of classes.

    Returns:
      Function from images to a score for each class.
    """
    return least_squares.fit(lambda x: x, images, labels, num_classes, RIDGE)


def pairwise_linear(
    images: Images, labels: Int[np.ndarray, " examples"], *, num_classes: int = 10
) -> Scores:
    """Fit a linear unit for each pair of classes: 45 units, 35,325 parameters for 28x28 pixels.

    Unit i/j is fitted to +1 for images of class i and to -1 for images of class j, and to no
    others. The score of class i is the sum of the units i/x minus the sum of the units x/i. Their
    outputs are rounded to +1 and -1, which the paper does not say: sums of linear functions are
    linear, and no better than `linear`.

    Arguments and result are those of `linear`; each class has images.
    """
    features = least_squares.in_chunks(with_one)
    equations = []  # sums of F F^T and of F, for each class
    for number in range(num_classes):
        of_class = images[labels == number]
        equations.append(
            least_squares.sums_of_products(features, of_class, np.ones((len(of_class), 1)))
        )
    units = []
    for i, j in itertools.combinations(range(num_classes), 2):
        (gram_i, sum_i), (gram_j, sum_j) = equations[i], equations[j]
        units.append(least_squares.solve(gram_i + gram_j, sum_i - sum_j, RIDGE))
    weights = jnp.asarray(np.concatenate(units, axis=1), jnp.float32)  # [pixels + 1, pairs]
    signs = np.zeros((len(units), num_classes), np.float32)
    for unit, (i, j) in enumerate(itertools.combinations(range(num_classes), 2)):
        signs[unit, [i, j]] = 1, -1

    def scores(x: Array) -> Array:
        return jnp.sign(jnp.matmul(with_one(x), weights, precision="highest")) @ signs

    return least_squares.in_chunks(scores)
