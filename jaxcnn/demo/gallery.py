"""Choose the digits that the page holds: ordinary ones, and the hardest for the network."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.data import datasets
from jaxcnn.data.open import open_split
from jaxcnn.errors import UserError
from jaxcnn.evaluation.inputs import DIGITS
from jaxcnn.evaluation.predict import Classifier

ORDINARY, HARDEST = 14, 6
SEARCHED = 1000  # test images among which the hardest are searched


class Gallery(NamedTuple):
    """Images with their labels.

    Attributes:
      images: raw images; ordinary ones first, then the hardest.
      labels: their labels.
      num_hard: how many of the last ones are the hardest.
    """

    images: UInt8[np.ndarray, "images 28 28 1"]
    labels: Int[np.ndarray, " images"]
    num_hard: int


def choose_gallery(classifier: Classifier) -> Gallery:
    """Choose images of the test set: those of the largest loss, and ordinary ones of each class.

    The images are digits of `mnist5k` for a network that was trained on digits, otherwise images
    of its own test set. Without that data the gallery is empty, and a line says so.
    """
    try:
        images, labels = _test_images(classifier)
    except UserError as error:
        report.say(f"The page has no gallery: {error}")
        return Gallery(np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int64), 0)
    log_probs = classifier.log_probs_of_one_view(images)
    return Gallery(*_choose(images, labels, log_probs))


def _test_images(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    config, names = classifier.trained.config, classifier.class_names
    if config.dataset in DIGITS and names == tuple("0123456789"):
        digits = datasets.load("mnist5k")
        return digits.test_images[:SEARCHED], digits.test_labels[:SEARCHED]
    split = open_split(config.dataset, **configs.dataset_options(config))
    if split.class_names != names:
        raise UserError(f"the classes of {config.dataset} are no longer those of the run")
    # Files are sorted by class, so the rows are spread over all of them.
    rows = np.linspace(0, len(split.images) - 1, min(SEARCHED, len(split.images))).astype(int)
    if isinstance(split.images, np.ndarray):
        assert split.labels is not None
        return split.images[rows], split.labels[rows]
    examples = [split.images.evaluation_example(row) for row in rows.tolist()]
    good = [example for example in examples if example["mask"]]
    if not good:
        raise UserError(f"no test image of {config.dataset} can be read")
    return np.stack([e["image"] for e in good]), np.array([e["label"] for e in good])


def _choose(
    images: np.ndarray, labels: np.ndarray, log_probs: Float[np.ndarray, "images classes"]
) -> tuple[np.ndarray, np.ndarray, int]:
    loss = -log_probs[np.arange(len(labels)), labels]
    by_loss = np.argsort(-loss, kind="stable")
    hardest = by_loss[:HARDEST]
    right = [i for i in np.flatnonzero(log_probs.argmax(-1) == labels) if i not in hardest]
    # One image of each class in turn: the first of every class, then the second, and so on.
    rank = [(labels[right[:k]] == labels[i]).sum() for k, i in enumerate(right)]
    in_turn = sorted(range(len(right)), key=lambda k: (rank[k], labels[right[k]]))
    ordinary = [right[k] for k in in_turn[:ORDINARY]]
    chosen = np.array([*ordinary, *hardest], int)
    return images[chosen], labels[chosen], len(hardest)
