"""The network of radial basis functions of figure 9 of 1998."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxcnn.classifiers import least_squares
from jaxcnn.classifiers.least_squares import Images, Scores, flatten, squared_distances

RIDGE = 1e-6
ITERATIONS = 30  # of k-means


@partial(jax.jit, static_argnames="iterations")
def k_means(
    x: Float[Array, "examples pixels"],
    centers: Float[Array, "centers pixels"],
    *,
    iterations: int = ITERATIONS,
) -> tuple[Float[Array, "centers pixels"], Float[Array, ""]]:
    """Move centers to the means of the examples nearest to them, several times (Lloyd).

    Args:
      x: examples.
      centers: first centers. A center that is nearest to no example stays where it is.
      iterations: number of moves.

    Returns:
      The centers, and the mean squared distance of the examples from the nearest one.
    """

    def move(_: int, centers: Array) -> Array:
        nearest = jax.nn.one_hot(squared_distances(x, centers).argmin(1), len(centers))
        counts = nearest.sum(0)[:, None]
        means = jnp.matmul(nearest.T, x, precision="highest") / jnp.maximum(counts, 1)
        return jnp.where(counts > 0, means, centers)

    centers = jax.lax.fori_loop(0, iterations, move, centers)
    return centers, squared_distances(x, centers).min(1).mean()


def rbf(
    images: Images,
    labels: Int[np.ndarray, " examples"],
    *,
    centers_per_class: int = 100,
    width: float = 1.0,
    num_classes: int = 10,
    seed: int = 0,
) -> Scores:
    """Fit linear units on Gaussian units: 10 groups of 100, one group for each class.

    The centers of a group are found by k-means among the images of its class. The second layer is
    fitted by a regularized pseudo-inverse. The paper's k-means is adaptive and its widths are not
    printed; ours is Lloyd's, and all units have the same width.

    Args:
      images: training images; their pixels may have any unit.
      labels: their classes; each class has at least `centers_per_class` images.
      centers_per_class: number of Gaussian units of each class.
      width: standard deviation of the Gaussian units, relative to the root mean square distance of
        a training image from the nearest center of its class.
      num_classes: number of classes.
      seed: seed of the first centers, which are images drawn at random.

    Returns:
      Function from images to a score for each class.

    Raises:
      ValueError: a class has too few images.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section III.C.
    """
    rng, groups, errors = np.random.default_rng(seed), [], []
    for number in range(num_classes):
        of_class = flatten(images[labels == number])
        if len(of_class) < centers_per_class:
            raise ValueError(
                f"class {number} has {len(of_class)} images; expected at least "
                f"{centers_per_class}, one a center; choose fewer centers"
            )
        first = of_class[np.sort(rng.choice(len(of_class), centers_per_class, replace=False))]
        centers, error = k_means(of_class, first)
        groups.append(centers)
        errors.append(error * len(of_class))
    centers = jnp.concatenate(groups)
    variance = width**2 * sum(map(float, errors)) / len(images)

    def gaussians(x: Array) -> Array:
        return jnp.exp(-squared_distances(x, centers) / (2 * variance))

    return least_squares.fit(gaussians, images, labels, num_classes, RIDGE)
