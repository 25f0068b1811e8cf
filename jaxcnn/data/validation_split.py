"""A validation split: images taken from the training set, by which training chooses and stops."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset


def with_validation(
    dataset: Dataset | StreamedDataset, fraction: float, seed: int
) -> Dataset | StreamedDataset:
    """Return the dataset with some of its training images as `val_images` instead.

    Args:
      dataset: dataset without a validation split.
      fraction: fraction of the training images to take, rounded to whole images.
      seed: seed of the choice; the same seed chooses the same images.

    Raises:
      UserError: the fraction is less than one image, or takes the only image of a class.
    """
    size, labels = len(dataset.train_images), dataset.train_labels
    if not size:
        return dataset
    val = validation_rows(np.zeros(size, np.int32) if labels is None else labels, fraction, seed)
    train = np.setdiff1d(np.arange(size), val)

    def take(rows: np.ndarray) -> tuple[Any, Any]:
        images: Any = dataset.train_images
        images = images.subset(rows) if dataset.is_streamed else images[rows]
        return images, None if labels is None else labels[rows]

    images, kept_labels = take(train)
    val_images, val_labels = take(val)
    fields = {"train_images": images, "train_labels": kept_labels, "val_images": val_images}
    if isinstance(dataset, Dataset):
        fields["val_labels"] = val_labels
    return dataclasses.replace(dataset, **fields)


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
