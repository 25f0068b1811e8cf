"""The training images nearest to each test image: in pixels, and in the last hidden layer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn.studies.image_measures import dataset_of
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

NEIGHBOURS = 6

Space = Literal["pixels", "initial features", "features"]
"""Where distances are Euclidean: in the pixels of the central crop, or in the last hidden layer,
with the network's initial or its trained parameters."""


def neighbours(run: Path, *, space: Space) -> Measured:
    """Return how alike the NEIGHBOURS training images nearest to each test image are.

    Args:
      run: folder of the run.
      space: space in which the images are near.

    Returns:
      `share`, the percentage of these images that have the label of the test image; `vote_error`,
      in percent, of the most frequent label among them, and `nearest_error`, of the label of the
      nearest; `pixel_distance`, the root mean square of their distance in pixels, in percent of
      that of all pairs of a test image and a training image.
    """
    data = dataset_of(workdirs.read_config(run))
    rows = nearest_images(run, space, data.train_images, data.test_images)
    labels, truth = data.train_labels[rows], data.test_labels
    votes = labels[..., None] == np.arange(len(data.class_names))  # [queries, neighbours, classes]
    answers = (votes.sum(1) + 0.5 * votes[:, 0]).argmax(-1)  # the nearest decides if equal
    to_pixels = vectors(run, "pixels")
    train, test = to_pixels(data.train_images), to_pixels(data.test_images)
    return {
        "share": _percent(labels == truth[:, None]),
        "vote_error": _percent(answers != truth),
        "nearest_error": _percent(labels[:, 0] != truth),
        "pixel_distance": round(100 * relative_distance(test, train, rows), 4),
    }


def nearest_images(run: Path, space: Space, images: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the rows of the images nearest to each query, [queries, NEIGHBOURS], nearest first.

    Args:
      run: folder of the run.
      space: space in which the images are near.
      images: raw images.
      queries: raw images.
    """
    import jax  # late, as all imports of these functions

    from jaxcnn.classifiers.least_squares import chunks
    from jaxcnn.classifiers.nearest import nearest

    to_vectors = vectors(run, space)
    stored = jax.numpy.asarray(to_vectors(images))
    find = jax.jit(functools.partial(nearest, k=NEIGHBOURS))
    found = [find(to_vectors(chunk), stored) for (chunk,) in chunks(queries)]
    return np.concatenate([np.asarray(rows) for rows in found])


def vectors(run: Path, space: Space) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function from raw images to vectors [images, units] of a space, in float32."""
    import jax

    from jaxcnn.classifiers.least_squares import chunks, flatten
    from jaxcnn.data.preprocess import evaluation_preprocess
    from jaxcnn.evaluation.predict import load
    from jaxcnn.evaluation.probes import layer_inputs
    from jaxcnn.models import network
    from jaxcnn.training.experiment import Experiment

    config, params = workdirs.read_config(run), None
    if space == "pixels":
        preprocess = evaluation_preprocess(config.transforms, (0.0,), (1 / 255,))  # to 0..255
        program = jax.jit(lambda _, images: flatten(preprocess(images)))
    else:
        classifier = load(run)
        state, params = classifier.state, classifier.state.params
        head = network.head(classifier.trained.model)
        assert head is not None
        if space == "initial features":
            params = Experiment(config).state.params

        def features(params: Any, images: jax.Array) -> jax.Array:
            inputs = classifier.preprocess(images)
            return flatten(layer_inputs(state.replace(params=params), inputs, head))

        program = jax.jit(features)

    def of_all(images: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(program(params, chunk)) for (chunk,) in chunks(images)])

    return of_all


def relative_distance(queries: np.ndarray, images: np.ndarray, rows: np.ndarray) -> float:
    """Return the distance of queries from chosen images, relative to that from all images.

    Args:
      queries: vectors [queries, units].
      images: vectors [images, units].
      rows: rows of the images that are chosen for each query, [queries, chosen].

    Returns:
      The ratio of the root mean squares of both distances.
    """
    chosen = np.mean([np.square(queries - images[column]).sum(-1).mean() for column in rows.T])
    means = np.square(queries.mean(0) - images.mean(0))
    return float(np.sqrt(chosen / (means + queries.var(0) + images.var(0)).sum()))


def _percent(right: np.ndarray) -> float:
    return round(100 * float(np.mean(right)), 4)
