"""Open a dataset by its name, as given to `--dataset`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from jaxcnn.data import datasets, sources
from jaxcnn.errors import UserError, lookup

if TYPE_CHECKING:
    from jaxcnn.data.decode import Images
    from jaxcnn.data.stream import StreamedDataset

SplitName = Literal["train", "val", "validation", "test"]

STREAMED = sources.PREFIXES


def open_dataset(
    name: str,
    *,
    data_dir: datasets.PathLike | None = None,
    manual_dir: datasets.PathLike | None = None,
    size: int,
    min_size: int,
    on_bad_image: Literal["refuse", "skip"],
    channels: int | None = None,
    max_value: float | None = None,
    hold_out: float = 0.0,
) -> datasets.Dataset | StreamedDataset:
    """Open a dataset: whole and in memory, or one whose images are decoded as they are needed.

    Args:
      name: a key of `DATASETS`, `folder:DIR` or `tfds:NAME`; the last two are streamed.
      data_dir: directory of TFDS's data; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      manual_dir: folder of the original files, which replace a download; not for streamed datasets.
      size: height and width of streamed images, in pixels.
      min_size: pixels that the shorter side of a streamed image must have.
      on_bad_image: policy for streamed images that are too small or cannot be decoded.
      channels: 1 for grey levels, 3 for colours; by default 3 for a folder, and as TFDS says.
      max_value: largest value of streamed pixels of more than 8 bits; by default as the file says.
      hold_out: fraction of a folder's images to test on; see `folders.list_folder`.

    Raises:
      UserError: there is no such dataset, or it cannot be read or prepared.
    """
    if not name.startswith(STREAMED):
        return datasets.load(name, data_dir=data_dir, manual_dir=manual_dir)
    from jaxcnn.data import stream  # late: importing Grain takes most of a second

    return stream.load(
        name,
        data_dir=data_dir,
        size=size,
        min_size=min_size,
        on_bad_image=on_bad_image,
        channels=channels,
        max_value=max_value,
        hold_out=hold_out,
    )


class Split(NamedTuple):
    """The images of one split.

    Attributes:
      name: name of the dataset, for messages.
      images: raw images, uint8.
      labels: indices into `class_names`; None if the images are streamed with their labels.
      class_names: name of each label.
      split: name of the split; None is the one that training tests on.
    """

    name: str
    images: np.ndarray | Images
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    split: SplitName | None = None


def open_split(name: str, split: SplitName | None = None, **options: Any) -> Split:
    """Open one split of a dataset; a folder needs no other splits.

    Args:
      name: name of the dataset; see `open_dataset`. A `folder:DIR` without folders of splits is a
        split itself, with its images in DIR/CLASS/.
      split: name of the split; by default the one that training tests on.
      **options: keyword arguments of `open_dataset`.

    Raises:
      UserError: there is no such dataset or split, or it cannot be read.
    """
    if name.startswith("folder:") and not options.get("hold_out"):
        from jaxcnn.data import stream  # late: importing Grain takes most of a second

        for option in ("data_dir", "manual_dir", "hold_out"):
            options.pop(option, None)
        images, class_names = stream.load_folder_split(
            name.removeprefix("folder:"), split, **options
        )
        return Split(name, images, None, class_names, split)
    known = ("train",) if name.startswith(STREAMED) else ("train", "test")
    if split not in (None, *known):
        raise UserError(
            f"`split` is {split}, but {name} is known to have {' and '.join(known)}; leave it out "
            "for the images that training tests on"
        )
    return split_of(open_dataset(name, **options), name, split)


def split_of(
    dataset: datasets.Dataset | StreamedDataset, name: str, split: SplitName | None
) -> Split:
    """Return a split of an open dataset: its training, validation or, by default, test images."""
    part = {"train": "train", "validation": "val"}.get(split or "test", "test")
    labels = getattr(dataset, f"{part}_labels", None) if not dataset.is_streamed else None
    return Split(name, getattr(dataset, f"{part}_images"), labels, dataset.class_names, split)


def check_name(name: str) -> None:
    """Check that a dataset of that name may exist.

    Raises:
      UserError: there is none; the message lists the valid names.
    """
    if not name.startswith(STREAMED):
        lookup("dataset", name, datasets.DATASETS, others=("folder:DIR", "tfds:NAME"))
