"""Measure the bars of figure 9 of 1998: runs, what is built on a run, and what is fitted.

Every function returns `test_error`, and `rejection`: the percentage of the test images to reject,
those with the smallest difference between the two largest scores, so that 0.5 % of the others are
wrong.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.studies.image_measures import dataset_of, test_images
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

# Modules that import jax are imported late, because listing the studies imports this module.


def error_and_rejection(run: Path) -> Measured:
    """Return the test error and the rejection of a run."""
    from jaxcnn.evaluation.predict import load

    images, labels = test_images(run)
    return _measured(load(run).log_probs(images), labels)


def closed_form(
    name: Literal["linear", "pairwise_linear", "nearest_neighbors", "pca_quadratic", "rbf"],
    config: TrainConfig,
) -> Measured:
    """Fit a classifier of `jaxcnn.classifiers` and return its test error and rejection.

    Args:
      name: name of the function.
      config: config with dataset, transforms, pixels and seed, of which `rbf` alone depends on the
        seed. Images are preprocessed as in evaluation.
    """
    return _closed_form(name, config if name == "rbf" else dataclasses.replace(config, seed=0))


@functools.cache
def _closed_form(name: str, config: TrainConfig) -> Measured:
    from jaxcnn.classifiers import linear, nearest, quadratic, rbf
    from jaxcnn.data.preprocess import evaluation_preprocess

    classifiers: dict[str, Callable[..., Callable[[np.ndarray], np.ndarray]]] = {
        "linear": linear.linear,
        "pairwise_linear": linear.pairwise_linear,
        "nearest_neighbors": nearest.nearest_neighbors,
        "pca_quadratic": quadratic.pca_quadratic,
        "rbf": functools.partial(rbf.rbf, seed=config.seed),
    }
    dataset = dataset_of(config)
    preprocess = evaluation_preprocess(config.transforms, config.pixel_mean, config.pixel_std)
    train_images, test_images = (
        _in_chunks(preprocess, images) for images in (dataset.train_images, dataset.test_images)
    )
    num_classes = len(dataset.class_names)
    scores = classifiers[name](train_images, dataset.train_labels, num_classes=num_classes)
    return _measured(scores(test_images), dataset.test_labels)


def last_layer_by_neighbors(run: Path) -> Measured:
    """Replace the last layer of a run's network by three nearest neighbours, as in LeNet-4 / K-NN.

    The neighbours are training images, and distances those of the features that the last layer
    receives.

    Raises:
      UserError: the network does not name its last layer.
    """
    from jaxcnn.classifiers.nearest import nearest_neighbors
    from jaxcnn.evaluation.predict import load
    from jaxcnn.evaluation.probes import layer_inputs
    from jaxcnn.models import network

    config, classifier = workdirs.read_config(run), load(run)
    head = network.head(classifier.trained.model)
    if head is None:
        raise UserError(
            f"{config.model} does not name its last layer; expected a network with `head`"
        )
    dataset = dataset_of(config)
    train, test = (
        _in_chunks(
            lambda images: layer_inputs(classifier.state, classifier.preprocess(images), head),
            images,
        )
        for images in (dataset.train_images, dataset.test_images)
    )
    scores = nearest_neighbors(train, dataset.train_labels, num_classes=len(dataset.class_names))
    return _measured(scores(test), dataset.test_labels)


def boosted(run: Path) -> Measured:
    """Train two networks that complement that of a run, as in Boosted LeNet-4, and measure all.

    Raises:
      UserError: the run has no `Affine` among its transforms, or none of its answers is wrong.
    """
    from jaxcnn.studies.boosting import boost

    images, labels = test_images(run)
    return _measured(boost(run)(images), labels)


def _in_chunks(function: Callable[[Any], Any], images: np.ndarray) -> np.ndarray:
    """Return the results of a function on the device, called with some images at a time."""
    import jax

    from jaxcnn.classifiers.least_squares import chunks

    jitted = jax.jit(function)
    return np.concatenate([np.asarray(jitted(chunk)) for (chunk,) in chunks(images)])


def _measured(scores: np.ndarray, labels: np.ndarray) -> Measured:
    from jaxcnn.evaluation.metrics import margins, rejection_errors, rejection_rate

    correct = scores.argmax(-1) == labels
    rejected = rejection_rate(rejection_errors(margins(scores), correct))
    return {
        "test_error": 100 * float((~correct).mean()),
        "rejection": 100.0 if rejected is None else 100 * rejected,  # no answer is certain enough
        "num_test_examples": len(labels),
    }
