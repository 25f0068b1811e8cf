"""Sets larger than the device, through Grain: images are decoded as the steps need them.

The order of an epoch is a function of (seed, epoch), and any of its batches can be read alone:
going on in mid-epoch needs no saved iterator.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import ClassVar, Literal

import grain
import numpy as np
from jaxtyping import Int, UInt8

from jaxcnn.data import decode, sources
from jaxcnn.data.decode import Images


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """What `datasets.Dataset` is for a set in memory; labels come with the images.

    Attributes:
      train_images: what to learn from.
      test_images: what no training step may see.
      class_names: what each label means.
    """

    train_images: Images
    test_images: Images
    class_names: tuple[str, ...]

    is_streamed: ClassVar[bool] = True

    def sample(self) -> UInt8[np.ndarray, "examples height width channels"]:
        """A thousand of the training images, the same ones in each run; all if they are fewer."""
        return first_images(self.train_images, seed=0, epoch=0, count=1000)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    size: int,
    min_size: int,
    on_bad_image: Literal["refuse", "skip"],
) -> StreamedDataset:
    """Opens a set; where bad images are refused, looks at the headers of a folder's files.

    Args:
      name: see `sources.open_source`.
      data_dir: likewise.
      size: see `Images`.
      min_size: likewise.
      on_bad_image: likewise.

    Raises:
      UserError: nothing of that name is there, it is not laid out as it should be, or such a header
        tells of a bad image.
    """
    source = sources.open_source(name, data_dir)
    if on_bad_image == "refuse":
        decode.check_headers(source, min_size)
    train, test = (
        Images(
            examples,
            size=size,
            channels=source.channels,
            min_size=min_size,
            on_bad_image=on_bad_image,
        )
        for examples in (source.train, source.test)
    )
    return StreamedDataset(train, test, source.class_names)


def first_images(
    images: Images, *, seed: int, epoch: int, count: int
) -> UInt8[np.ndarray, "count height width channels"]:
    """Images of the first `count` rows of an epoch's order, or of all if there are fewer."""
    rows = _order(images, seed, epoch)[:count]
    return next(iter(_decoded(rows.map(images.training_example), count)))["image"]


def training_batches(
    images: Images,
    *,
    seed: int,
    epoch: int,
    first: int,
    batch_size: int,
    share: slice = slice(None),
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """The whole batches of an epoch from one on: each a function of (seed, epoch) and its index.

    Args:
      images: the training set.
      seed: of the run.
      epoch: counted from 0.
      first: index of the batch to begin with.
      batch_size: of all processes together.
      share: the part of each batch that this process reads.
    """
    num_batches = len(images) // batch_size
    places = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[first:, share]
    order = _order(images, seed, epoch)
    examples = grain.MapDataset.source(places.ravel()).map(
        lambda place: images.training_example(order[place])
    )
    return _decoded(examples, places.shape[1])


def evaluation_batches(
    images: Images, *, batch_size: int, share: slice = slice(None)
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Batches in which each image is once, in order; the last one is filled up, and masked.

    Args:
      images: the test set.
      batch_size: of all processes together.
      share: the part of each batch that this process reads.
    """
    num_batches = -(-len(images) // batch_size)
    rows = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share]
    examples = grain.MapDataset.source(rows.ravel()).map(images.evaluation_example)
    return _decoded(examples, rows.shape[1])


def subset(images: Images, rows: Int[np.ndarray, " count"]) -> Sequence[np.ndarray]:
    """These images, still decoded only when asked for."""
    return grain.MapDataset.source(rows).map(images.__getitem__)


def _order(images: Images, seed: int, epoch: int) -> grain.MapDataset[int]:
    # Grain itself adds the epoch to the seed: epoch 1 of seed 0 would be epoch 0 of seed 1.
    (shuffle_seed,) = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return grain.MapDataset.range(len(images)).shuffle(seed=int(shuffle_seed))


def _decoded(examples: grain.MapDataset, batch_size: int) -> grain.IterDataset:
    # Threads and not processes: Pillow decodes without holding Python's lock.
    options = grain.ReadOptions(num_threads=os.cpu_count() or 1)
    return examples.to_iter_dataset(options).batch(batch_size)
