"""The parts of a training set: images to validate on, fewer to train on, and random labels."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset


def split_training_set(
    dataset: Dataset | StreamedDataset,
    *,
    val_fraction: float,
    train_examples: int | None,
    label_noise: float = 0.0,
    seed: int,
) -> Dataset | StreamedDataset:
    """Return the dataset with `val_images` from its training set, and a subset of the others.

    The images of both parts keep the order of the training set.

    Args:
      dataset: dataset without a validation split.
      val_fraction: fraction of the training images to take for validation, rounded to whole images;
        0 takes none.
      train_examples: number of the other images to train on; None keeps all of them.
      label_noise: probability that a label of the images to train on is drawn at random; see
        `noisy_labels`. For a dataset in memory.
      seed: seed of all choices; the same seed chooses the same images.

    Raises:
      UserError: the fraction is less than one image or takes the only image of a class, or there
        are fewer than `train_examples` images.
    """
    size, labels = len(dataset.train_images), dataset.train_labels
    if not size:
        return dataset
    classes = np.zeros(size, np.int32) if labels is None else labels

    def take(rows: np.ndarray) -> tuple[Any, Any]:
        images: Any = dataset.train_images
        images = images.subset(rows) if dataset.is_streamed else images[rows]
        return images, None if labels is None else labels[rows]

    train, fields = np.arange(size), {}
    if val_fraction:
        val = validation_rows(classes, val_fraction, seed)
        train = np.setdiff1d(train, val)
        fields["val_images"], val_labels = take(val)
        if isinstance(dataset, Dataset):
            fields["val_labels"] = val_labels
    if train_examples is not None:
        train = train[subset_rows(classes[train], train_examples, seed)]
    if len(train) < size:
        fields["train_images"], fields["train_labels"] = take(train)
    if label_noise and labels is not None:
        kept, num_classes = fields.get("train_labels", labels), len(dataset.class_names)
        fields["train_labels"] = noisy_labels(kept, label_noise, num_classes, seed)
    return dataclasses.replace(dataset, **fields) if fields else dataset


def validation_rows(
    labels: Int[np.ndarray, " examples"], fraction: float, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Return rows chosen at random in proportion to the classes, in ascending order.

    At least one example of each class is not chosen.

    Args:
      labels: label of each example; equal labels choose regardless of the class.
      fraction: fraction of the examples to choose.
      seed: seed of the choice.

    Raises:
      UserError: the fraction is less than one example or more than there are to choose from.
    """
    # The training order of a streamed epoch has the seed sequence (seed, epoch).
    order = np.random.default_rng((seed, 0, 1)).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    is_first = np.diff(labels[by_class], prepend=-1) != 0
    candidates = by_class[~is_first]
    count = round(fraction * len(labels))
    if not 1 <= count <= len(candidates):
        raise UserError(
            f"`val_fraction` is {fraction}, which is {count:,} of the {len(labels):,} training "
            f"images; expected 1 to {len(candidates):,} images, because each class keeps one"
        )
    places = (np.arange(count) + 0.5) * len(candidates) / count  # evenly spaced over the classes
    return np.sort(candidates[places.astype(np.int64)])


def subset_rows(
    labels: Int[np.ndarray, " examples"], count: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Return rows chosen at random in proportion to the classes, in ascending order.

    A smaller subset of the same seed is a part of a larger one, so that they can be compared in
    pairs. The first rows that are chosen are one of each class.

    Args:
      labels: label of each example; equal labels choose regardless of the class.
      count: number of rows to choose.
      seed: seed of the choice.

    Raises:
      UserError: there are fewer examples.
    """
    if count > len(labels):
        raise UserError(
            f"`train_examples` is {count:,}; expected at most {len(labels):,}, the images to train "
            "on"
        )
    order = np.random.default_rng((seed, 0, 2)).permutation(len(labels))
    by_class = np.argsort(labels[order], kind="stable")
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The classes advance side by side, from their first example to their last.
    progress = np.empty(len(labels))
    progress[by_class] = rank / np.repeat(sizes, sizes)
    return np.sort(order[np.argsort(progress, kind="stable")[:count]])


def noisy_labels(
    labels: Int[np.ndarray, " examples"], probability: float, num_classes: int, seed: int
) -> Int[np.ndarray, " examples"]:
    """Return labels of which some are replaced by random ones, uniform over the classes.

    With a smaller probability and the same seed, fewer of the same labels are replaced.

    Args:
      labels: label of each example.
      probability: probability that a label is replaced, possibly by itself, in [0, 1].
      num_classes: number of classes.
      seed: seed of the choice.

    References:
      Zhang et al., "Understanding deep learning requires rethinking generalization", 2017, section
      2.1, "partially corrupted labels".
    """
    rng = np.random.default_rng((seed, 0, 3))
    replaced = rng.random(len(labels)) < probability
    return np.where(replaced, rng.integers(num_classes, size=len(labels)), labels).astype(np.int32)
