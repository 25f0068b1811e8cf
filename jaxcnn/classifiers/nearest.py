"""The k nearest neighbours of figure 9 of 1998."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Int

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
      Function from images to a score for each class: the number of votes, plus less than one half
      that is larger for nearer neighbours, so that the nearest decides between equal votes.

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
    stored, classes = flatten(images), jnp.asarray(labels)
    votes = np.float32(1 + np.arange(k, 0, -1) / (k * (k + 2)))

    def scores(x: Array) -> Array:
        _, nearest = lax.top_k(-squared_distances(x, stored), k)  # [examples, k]
        of_class = jax.nn.one_hot(classes[nearest], num_classes)  # [examples, k, classes]
        return (of_class * votes.reshape(1, k, 1)).sum(1)

    return in_chunks(scores)
