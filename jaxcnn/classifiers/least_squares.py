"""Linear units on features of images, fitted by regularized least squares.

Features are computed on the device, in chunks of images; their products are summed and the
equations solved on the host, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Real, Shaped

CHUNK = 1000  # images

Images = Real[np.ndarray, "examples ..."]  # pixels, or features, of any unit
Scores = Callable[[Images], Float[np.ndarray, "examples classes"]]


def chunks(*arrays: Shaped[np.ndarray, "examples ..."]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield pieces of arrays of the same length, of `CHUNK` examples each but for the last."""
    for start in range(0, len(arrays[0]), CHUNK):
        yield tuple(array[start : start + CHUNK] for array in arrays)


def in_chunks(function: Callable[[Array], Array]) -> Callable[[Images], np.ndarray]:
    """Return a function of any number of images that calls a jitted function of flat images.

    Args:
      function: function of pixels [examples, pixels] in float32, whatever their unit.
    """
    jitted = jax.jit(lambda images: function(flatten(images)))

    def of_all(images: Images) -> np.ndarray:
        return np.concatenate([np.asarray(jitted(chunk)) for (chunk,) in chunks(images)])

    return of_all


def flatten(images: Real[Array | np.ndarray, "examples ..."]) -> Float[Array, "examples pixels"]:
    """Return the pixels of each image in a row, in float32."""
    return jnp.asarray(images, jnp.float32).reshape(len(images), -1)


def with_one(features: Float[Array, "examples features"]) -> Float[Array, "examples features+1"]:
    """Append a feature that is always 1, for the bias."""
    return jnp.pad(features, ((0, 0), (0, 1)), constant_values=1.0)


def squared_distances(
    x: Float[Array, "examples pixels"], centers: Float[Array, "centers pixels"]
) -> Float[Array, "examples centers"]:
    """Return the squared Euclidean distance of each example from each center, at least 0."""
    products = jnp.matmul(x, centers.T, precision="highest")
    norms = jnp.square(x).sum(-1)[:, None] + jnp.square(centers).sum(-1)[None]
    return jnp.maximum(norms - 2 * products, 0)


def targets(labels: np.ndarray, num_classes: int) -> Float[np.ndarray, "examples classes"]:
    """Return +1 for the class of each example and -1 for the others."""
    return 2.0 * (labels[:, None] == np.arange(num_classes)) - 1


def sums_of_products(
    features: Callable[[Images], np.ndarray],
    images: Images,
    values: Float[np.ndarray, "examples _"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums over examples of F F^T and F v^T in float64: the normal equations.

    Args:
      features: function from images to features F of each.
      images: images, in chunks.
      values: values v of each image.
    """
    gram: np.ndarray | float = 0.0
    moments: np.ndarray | float = 0.0
    for chunk, v in chunks(images, values):
        f = features(chunk).astype(np.float64)
        gram, moments = gram + f.T @ f, moments + f.T @ v
    return np.asarray(gram), np.asarray(moments)


def solve(gram: np.ndarray, moments: np.ndarray, ridge: float) -> Float[np.ndarray, "features _"]:
    """Return the weights of the units: the regularized solution of the normal equations.

    Args:
      gram: sum of F F^T; the last feature is the bias's, which is always 1.
      moments: sum of F v^T.
      ridge: penalty on squared weights but for the bias, relative to the mean square of the
        features; above 0, because pixels that are always white have no weight otherwise.
    """
    squares = np.diag(gram)[:-1]
    penalty = np.append(np.full(len(squares), ridge * squares.mean()), 0.0)
    return scipy.linalg.solve(gram + np.diag(penalty), moments, assume_a="pos")


def fit(
    features: Callable[[Array], Array],
    images: Images,
    labels: np.ndarray,
    num_classes: int,
    ridge: float,
) -> Scores:
    """Fit a linear unit for each class to +1 for its images and -1 for all others.

    Args:
      features: function from flat images to features, without the bias's.
      images: training images.
      labels: their classes.
      num_classes: number of classes.
      ridge: see `solve`.

    Returns:
      Function from images to the outputs of the units.
    """

    def biased(x: Array) -> Array:
        return with_one(features(x))

    equations = sums_of_products(in_chunks(biased), images, targets(labels, num_classes))
    weights = jnp.asarray(solve(*equations, ridge), jnp.float32)
    return in_chunks(lambda x: jnp.matmul(biased(x), weights, precision="highest"))
