"""Streamed datasets, read by Grain: images are decoded when a step needs them.

The order of an epoch is a function of (seed, epoch), and any of its batches can be read alone, so
resuming within an epoch needs no saved iterator.
"""

from __future__ import annotations

import dataclasses
import os
from typing import ClassVar, Literal

import grain
import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcnn.data import decode, folders, sources
from jaxcnn.data.decode import Images
from jaxcnn.paths import local_path


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """A dataset whose images are decoded on demand; each image carries its label.

    Attributes:
      train_images: training images.
      test_images: test images, never used in training.
      class_names: name of each label.
      train_labels: labels of the training images, or None if they are stored with the images.
      val_images: images taken from the training set for validation; see `splits`.
    """

    train_images: Images
    test_images: Images
    class_names: tuple[str, ...]
    train_labels: Int[np.ndarray, " num_train"] | None = None
    val_images: Images | None = None

    is_streamed: ClassVar[bool] = True

    def evaluation_images(self) -> dict[str, Images]:
        """Return the images of each split that is evaluated: test, and validation."""
        splits = {"test": self.test_images}
        return splits if self.val_images is None else splits | {"validation": self.val_images}

    def sample(self) -> UInt8[np.ndarray, "examples height width channels"]:
        """Return the same 1,000 training images in each run, or all if there are fewer."""
        return first_images(self.train_images, seed=0, epoch=0, count=1000)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    size: int,
    min_size: int,
    on_bad_image: Literal["refuse", "skip"],
    channels: int | None = None,
    max_value: float | None = None,
    hold_out: float = 0.0,
) -> StreamedDataset:
    """Open a streamed dataset; check the image headers of a folder if corrupt images are refused.

    Args:
      name: name of the dataset; see `sources.open_source`.
      data_dir: directory of TFDS's data; see `sources.open_source`.
      size: height and width of the decoded images, in pixels.
      min_size: pixels that the shorter side of a stored image must have.
      on_bad_image: policy for corrupt images; see `decode.Images`.
      channels: 1 for grey levels, 3 for colours; by default 3 for a folder, and as TFDS says.
      max_value: largest value of pixels of more than 8 bits; by default as each file says.
      hold_out: fraction of a folder's images to test on; see `folders.list_folder`.

    Raises:
      UserError: there is no such dataset, its layout is not the expected one, or a header is bad.
    """
    source = sources.open_source(name, data_dir, hold_out=hold_out)
    if on_bad_image == "refuse":
        decode.check_headers([source.train, source.test], min_size, max_value)
    train, test = (
        Images(
            examples,
            size=size,
            channels=channels or source.channels,
            min_size=min_size,
            max_value=max_value,
            on_bad_image=on_bad_image,
        )
        for examples in (source.train, source.test)
    )
    labels = source.train.labels if isinstance(source.train, sources.Files) else None
    return StreamedDataset(train, test, source.class_names, labels)


def load_folder_split(
    folder: str,
    split: str | None,
    *,
    size: int,
    min_size: int,
    on_bad_image: Literal["refuse", "skip"],
    channels: int | None = None,
    max_value: float | None = None,
) -> tuple[Images, tuple[str, ...]]:
    """Open one split of a folder of images; return its images and class names.

    Args:
      folder: directory with SPLIT/CLASS/*, or CLASS/*.
      split: name of the split; see `folders.list_split`.
      size: see `load`.
      min_size: see `load`.
      on_bad_image: see `load`.
      channels: see `load`.
      max_value: see `load`.

    Raises:
      UserError: there is no such split, or a header is bad.
    """
    listed, class_names = folders.list_split(local_path(folder, "`dataset`"), split)
    files = sources.Files(listed)
    if on_bad_image == "refuse":
        decode.check_headers([files], min_size, max_value)
    images = Images(
        files,
        size=size,
        channels=channels or 3,
        min_size=min_size,
        max_value=max_value,
        on_bad_image=on_bad_image,
    )
    return images, class_names


def first_images(
    images: Images,
    *,
    seed: int,
    epoch: int,
    count: int,
    probabilities: Float[np.ndarray, " images"] | None = None,
) -> UInt8[np.ndarray, "count height width channels"]:
    """Return the first `count` images of an epoch's order, or all if there are fewer."""
    rows = _order(images, seed, epoch, probabilities)[:count]
    return next(iter(_decoded(rows.map(images.training_example), count)))["image"]


def training_batches(
    images: Images,
    *,
    seed: int,
    epoch: int,
    first: int,
    batch_size: int,
    share: slice = slice(None),
    probabilities: Float[np.ndarray, " images"] | None = None,
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Read the full batches of an epoch from `first` on; each depends on (seed, epoch, index) only.

    Args:
      images: training set.
      seed: seed of the run.
      epoch: epoch, counted from 0.
      first: index of the first batch to read.
      batch_size: images in a batch, over all processes.
      share: slice of each batch that this process reads.
      probabilities: probability of each image; as many images as there are are drawn for an epoch,
        with replacement. By default each is read once.
    """
    num_batches = len(images) // batch_size
    places = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[first:, share]
    order = _order(images, seed, epoch, probabilities)
    examples = grain.MapDataset.source(places.ravel()).map(
        lambda place: images.training_example(order[place])
    )
    return _decoded(examples, places.shape[1])


def evaluation_batches(
    images: Images, *, batch_size: int, share: slice = slice(None)
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Read batches that hold each image once, in order; the last one is padded and masked.

    Args:
      images: test set.
      batch_size: images in a batch, over all processes.
      share: slice of each batch that this process reads.
    """
    num_batches = -(-len(images) // batch_size)
    rows = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share]
    examples = grain.MapDataset.source(rows.ravel()).map(images.evaluation_example)
    return _decoded(examples, rows.shape[1])


def _order(
    images: Images, seed: int, epoch: int, probabilities: np.ndarray | None
) -> grain.MapDataset[int]:
    if probabilities is not None:
        rng = np.random.default_rng((seed, epoch))
        return grain.MapDataset.source(rng.choice(len(images), len(images), p=probabilities))
    # Grain adds the epoch to the seed, so epoch 1 of seed 0 would equal epoch 0 of seed 1.
    (shuffle_seed,) = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return grain.MapDataset.range(len(images)).shuffle(seed=int(shuffle_seed))


def _decoded(examples: grain.MapDataset, batch_size: int) -> grain.IterDataset:
    # Threads and not processes: Pillow decodes without holding Python's lock.
    options = grain.ReadOptions(num_threads=os.cpu_count() or 1)
    return examples.to_iter_dataset(options).batch(batch_size)
