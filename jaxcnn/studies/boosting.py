"""Boosting: three networks, each trained on patterns that those before it find hard.

The first network is trained as usual. The second is trained on patterns of which the first answers
half wrong, the third on new patterns on which the first two disagree. Their outputs are added.

References:
  LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998,
  section III.C, for Boosted LeNet-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxcnn.config import TrainConfig
from jaxcnn.data import augment
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.transforms import Affine
from jaxcnn.errors import UserError
from jaxcnn.evaluation import predict
from jaxcnn.training.train import train_and_evaluate

Images = UInt8[np.ndarray, "examples height width channels"]
CHUNK = 1000  # images that are distorted at a time


def half_wrong(
    correct: Bool[np.ndarray, " patterns"], rng: np.random.Generator
) -> Int[np.ndarray, " chosen"]:
    """Return the rows of as many right as wrong answers, as many as possible, in their order.

    Args:
      correct: whether the first network's answer for each pattern is right.
      rng: source of the rows that are left out, of the kind of which there are more.
    """
    right, wrong = np.flatnonzero(correct), np.flatnonzero(~correct)
    count = min(len(right), len(wrong))
    chosen = [rng.choice(rows, count, replace=False) for rows in (right, wrong)]
    return np.sort(np.concatenate(chosen))


def disagreements(
    first: Int[np.ndarray, " patterns"], second: Int[np.ndarray, " patterns"]
) -> Int[np.ndarray, " chosen"]:
    """Return the rows of the patterns for which two networks have different answers."""
    return np.flatnonzero(first != second)


def distorted(images: Images, transform: Affine, *, seed: int, copies: int = 1) -> Images:
    """Return random distortions of images, `copies` of each: all images, then all again.

    Args:
      images: images.
      transform: distortion.
      seed: seed of the distortions.
      copies: number of distortions of each image.
    """
    fields, key = dataclasses.asdict(transform), jax.random.key(seed)
    distort = jax.jit(lambda key, images: augment.affine(key, images, **fields))
    pieces = []
    for copy in range(copies):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            piece = distort(jax.random.fold_in(key, copy * len(images) + start), chunk)
            pieces.append(np.clip(np.rint(np.asarray(piece)), 0, 255).astype(np.uint8))
    return np.concatenate(pieces)


def boost(
    config: TrainConfig, dataset: Dataset, folder: Path, *, transform: Affine, copies: int = 9
) -> Callable[[Images], Float[np.ndarray, "examples classes"]]:
    """Train three networks, or finish them, and return the sum of their outputs.

    The patterns that are filtered are distortions of the training images, new ones for the third
    network. The second and the third network are trained on those that remain, without further
    distortions. An interrupted call continues when it is repeated.

    Args:
      config: config of the first network; that of the others has no `Affine` among its transforms.
      dataset: images and labels.
      folder: folder with a run for each network: `first`, `second` and `third`.
      transform: distortion of the patterns that are filtered.
      copies: number of distortions of each training image that are filtered; the paper has 9.

    Returns:
      Function from raw images to the sum of the three networks' probabilities for each class.

    Raises:
      UserError: a filter leaves no pattern, or as `train_and_evaluate`.
    """
    labels = np.tile(dataset.train_labels, copies)
    plain = tuple(each for each in config.transforms if not isinstance(each, Affine))
    filtered = dataclasses.replace(config, transforms=plain)

    def new_patterns(number: int) -> Images:
        seed = 3 * config.seed + number
        return distorted(dataset.train_images, transform, seed=seed, copies=copies)

    def trained(name: str, config: TrainConfig, data: Dataset) -> predict.Classifier:
        train_and_evaluate(dataclasses.replace(config, workdir=str(folder / name)), dataset=data)
        return predict.load(folder / name)

    def chosen(name: str, images: Images, rows: np.ndarray) -> Dataset:
        if not len(rows):
            raise UserError(
                f"no pattern is left for the {name} network of {len(images):,}; expected some that "
                "are hard; raise `copies`, or distort more"
            )
        return dataclasses.replace(dataset, train_images=images[rows], train_labels=labels[rows])

    first = trained("first", config, dataset)
    images = new_patterns(1)
    correct = first.log_probs(images).argmax(-1) == labels
    rows = half_wrong(correct, np.random.default_rng(config.seed))
    second = trained("second", filtered, chosen("second", images, rows))
    images = new_patterns(2)
    answers = [each.log_probs(images).argmax(-1) for each in (first, second)]
    third = trained("third", filtered, chosen("third", images, disagreements(*answers)))
    return lambda images: sum(np.exp(each.log_probs(images)) for each in (first, second, third))
