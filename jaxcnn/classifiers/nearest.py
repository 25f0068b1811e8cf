"""The k nearest neighbours of figure 9 of 1998."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxcnn.classifiers.least_squares import (
    Images,
    Scores,
    flatten,
    in_chunks,
    squared_distances,
)


def nearest_neighbors(
    images: Images, labels: Int[np.ndarray, " examples"], *, k: int = 3, num_classes: int = 10
) -> Scores:
    """Classify by the k training images at the smallest Euclidean distance.

    Args:
      images: training images; their pixels may have any unit.
      labels: their classes.
      k: number of neighbours that vote.
      num_classes: number of classes.

    Returns:
      Function from images to a score for each class: the number of votes, plus half of the ratio of
      two distances, that of the nearest training image of all and that of the class. The nearest
      decides between equal votes, and the difference of the two largest scores, by which answers
      are rejected, has as many values as there are distances.

    Raises:
      ValueError: k is not from 1 to the number of training images.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section III.C, with k = 3.
    """
    if not 1 <= k <= len(images):
        raise ValueError(
            f"k is {k}; expected 1 to {len(images)}, the number of training images; choose fewer"
        )
    flat = flatten(images)
    stored = [flat[labels == number] for number in range(num_classes)]

    def scores(x: Array) -> Array:
        of_class = [_smallest(squared_distances(x, each), k) for each in stored]
        distances = jnp.stack(of_class, axis=1)  # squared [examples, classes, k]
        _, places = lax.top_k(-distances.reshape(len(x), -1), k)
        votes = jax.nn.one_hot(places // k, num_classes).sum(1)
        first = distances[:, :, 0]
        least = first.min(1, keepdims=True)
        ratio = jnp.where(first > least, jnp.sqrt(least / first), 1.0)
        return votes + ratio / 2

    return in_chunks(scores)


def nearest(
    x: Float[Array, "examples units"], stored: Float[Array, "stored units"], k: int
) -> Int[Array, "examples k"]:
    """Return the rows of the k vectors nearest to each example, in order of their distance."""
    return lax.top_k(-squared_distances(x, stored), k)[1]


def _smallest(distances: Float[Array, "examples stored"], k: int) -> Float[Array, "examples k"]:
    """Return the k smallest distances of each example, in order; infinite where there are fewer."""
    missing = max(0, k - distances.shape[1])
    padded = jnp.pad(distances, ((0, 0), (0, missing)), constant_values=jnp.inf)
    return -lax.top_k(-padded, k)[0]
