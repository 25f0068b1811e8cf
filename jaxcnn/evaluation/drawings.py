"""The pictures of an evaluation: which there are, and from what each is drawn."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.evaluation import diagrams, metrics, pictures, probes
from jaxcnn.evaluation.diagrams import Saliency
from jaxcnn.evaluation.metrics import LEGIBLE_CLASSES
from jaxcnn.evaluation.pictures import label
from jaxcnn.evaluation.predict import Classifier

EMBEDDED = 1000  # images of the embedding
OCCLUDED_SIDE = 28  # places of the occluding square along an image, about

_logger = logging.getLogger(__name__)


class Answers(NamedTuple):
    """The good images of a test set, and what the network answers; `files` may be empty."""

    images: np.ndarray | Sequence[np.ndarray]
    labels: Int[np.ndarray, " examples"]
    log_probs: Float[np.ndarray, "examples classes"]
    files: Sequence[str] = ()


def draw(
    classifier: Classifier,
    evaluation: dict[str, Any],
    answers: Answers,
    folder: Path,
    *,
    image: int = 0,
    saliency: Sequence[int] = (),
    embedding: bool = False,
) -> None:
    """Draw each picture; one that cannot be drawn costs a warning.

    Args:
      classifier: trained network.
      evaluation: content of `evaluation.json`.
      answers: images of the test set, and the answers.
      folder: existing folder to write to.
      image: index of the image whose feature maps are drawn.
      saliency: indices of the images of `saliency.png`.
      embedding: whether to draw `embedding.png`.
    """
    images, labels, log_probs, files = answers
    class_names = evaluation["class_names"]
    correct = log_probs.argmax(-1) == labels
    confidences = np.exp(log_probs.max(-1).astype(float))
    errors = metrics.rejection_errors(metrics.margins(log_probs), correct)
    bins = metrics.calibration(confidences, correct)
    draw: dict[str, Callable[..., None]] = {}
    if len(class_names) <= LEGIBLE_CLASSES:
        confusion = np.array(evaluation["confusion"])
        draw["confusion"] = functools.partial(pictures.save_confusion, confusion, class_names)
    probabilities = np.exp(log_probs)
    draw["mistakes"] = functools.partial(
        pictures.save_mistakes, images, labels, probabilities, class_names, files=files
    )
    draw["calibration"] = functools.partial(diagrams.save_calibration, bins)
    draw["rejection"] = functools.partial(diagrams.save_rejection, errors)
    draw |= _inside(classifier, answers, image)
    count, accuracies = evaluation["num_shifted_examples"], evaluation["shift_accuracies"]
    which = f"all {count:,}" if count == len(labels) else f"{count:,} of the {len(labels):,}"
    fill = "on a background of 0" if images[0].shape[-1] == 1 else "the edge repeated"
    comment = f"{which} test images, {fill}"
    draw["shifts"] = functools.partial(pictures.save_shifts, accuracies, comment)
    if embedding:
        draw["embedding"] = functools.partial(_embedding, classifier, answers)
    if saliency:
        draw["saliency"] = functools.partial(_saliency, classifier, answers, saliency)
    subject = f"{classifier.trained.name}, step {evaluation['step']:,}, on {evaluation['dataset']}"
    if evaluation["split"]:
        subject += f" ({evaluation['split']})"
    for name, save in draw.items():
        path = folder / f"{name}.png"
        try:
            save(path, subject=subject)
        except Exception as error:  # matplotlib raises any type of exception
            _logger.warning("%s is not drawn (%s: %s)", path, type(error).__name__, error)


def _inside(classifier: Classifier, answers: Answers, image: int) -> dict[str, Callable[..., None]]:
    """Return the pictures of kernels and maps that the network has."""
    draw: dict[str, Callable[..., None]] = {}
    pixels, class_names = answers.images[image], classifier.class_names
    inputs = classifier.preprocess(pixels[None])
    maps = {
        name: np.asarray(x[0], np.float32)
        for name, x in probes.feature_maps(classifier.state, inputs).items()
    }
    params = classifier.trained.params
    layers = _convolutions(classifier, maps)
    if layers:
        kernel = np.asarray(params[layers[0]]["kernel"])
        draw["filters"] = functools.partial(pictures.save_filters, kernel, layers[0])
    if maps:
        of_image = answers.labels[image], answers.log_probs[image].argmax()
        truth, answer = (label(class_names[i], 16) for i in of_image)
        title = f"test image {image}\nclass: {truth}\nanswer: {answer}"
        draw["feature_maps"] = functools.partial(pictures.save_feature_maps, pixels, title, maps)
    return draw


def _convolutions(classifier: Classifier, maps: dict[str, Any]) -> list[str]:
    params = classifier.trained.params
    return [name for name in maps if "kernel" in params.get(name, {})]


def _embedding(classifier: Classifier, answers: Answers, path: Path, *, subject: str) -> None:
    """Draw the principal components of the last layer but one."""
    count = min(EMBEDDED, len(answers.labels))
    rows = np.random.default_rng(0).choice(len(answers.labels), count, replace=False)
    images = np.stack([answers.images[row] for row in np.sort(rows).tolist()])
    first = classifier.preprocess(images[:1])
    *hidden, _ = probes.layer_outputs(classifier.state, first)
    if not hidden:
        raise ValueError("the network has one layer; expected a layer before the last")
    layer = hidden[-1]
    features = classifier.features(images, layer=layer, prepare="none").reshape(count, -1)
    coordinates, fractions = probes.principal_components(features)
    labels = answers.labels[np.sort(rows)]
    diagrams.save_embedding(
        coordinates, fractions, labels, classifier.class_names, layer, path, subject=subject
    )


def _saliency(
    classifier: Classifier, answers: Answers, chosen: Sequence[int], path: Path, *, subject: str
) -> None:
    """Draw Grad-CAM of the last convolution, and the occlusion sensitivity, for the answers."""
    inputs = classifier.preprocess(np.stack([answers.images[i] for i in chosen]))
    maps = probes.feature_maps(classifier.state, inputs[:1])
    convolutions = _convolutions(classifier, maps)
    if not convolutions:
        raise ValueError("the network has no convolution whose maps Grad-CAM could show")
    layer = convolutions[-1]
    pixels = np.asarray(inputs)
    probabilities = classifier.probabilities_of_preprocessed(pixels)
    classes = probabilities.argmax(-1).tolist()
    cams = probes.grad_cam(classifier.state, inputs, classes, layer=layer)
    side = max(inputs.shape[1:3])
    size, stride = max(1, side // 5), math.ceil(side / OCCLUDED_SIDE)
    config = classifier.trained.config
    rows: list[Saliency] = []
    for i, x, answer, cam in zip(chosen, pixels, classes, cams, strict=True):
        occlusion = probes.occlusion(
            classifier.probabilities_of_preprocessed, x, answer, size=size, stride=stride
        )
        shown = np.clip(x * np.array(config.pixel_std) + np.array(config.pixel_mean), 0, 1)
        truth = label(classifier.class_names[answers.labels[i]], 12)
        name = label(classifier.class_names[answer], 12)
        probability = probabilities[len(rows), answer]
        title = f"#{i}, is {truth}\nanswer {name} ({probability:.1%})"
        rows.append(Saliency(title, shown, cam, occlusion))
    diagrams.save_saliency(rows, layer, size, path, subject=subject)
