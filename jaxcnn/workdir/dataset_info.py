"""What a run needs to know about its dataset when the dataset is elsewhere: `dataset.json`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcnn import records
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError
from jaxcnn.files import write_atomically
from jaxcnn.workdir.folder import read_config

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset

FILE = "dataset.json"


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Description of a dataset.

    Attributes:
      class_names: name of each label.
      image_shape: [height, width, channels] of the raw images.
      num_train_images: size of the training set.
      train_files: digest of the names of the training files, without the folder that holds them;
        None if the images are not files.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num_train_images: int
    train_files: str | None = None


def describe(dataset: Dataset | StreamedDataset) -> DatasetInfo:
    """Return the description of a dataset."""
    num_train_images, height, width, channels = dataset.train_images.shape
    paths = getattr(dataset.train_images, "paths", ())
    return DatasetInfo(
        class_names=dataset.class_names,
        image_shape=(height, width, channels),
        num_train_images=num_train_images,
        train_files=_digest(paths) if paths else None,
    )


def read(workdir: Path) -> DatasetInfo | None:
    """Return the description in a run's folder, or None for a run of an earlier version.

    Raises:
      UserError: the file is corrupt.
    """
    path = workdir / FILE
    try:
        record = records.read(path)
        records.check_seal(record)
        return records.convert(records.unsealed(record), DatasetInfo)
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(
            f"{path} is not a description that this jaxcnn can read: {error}; delete the file to "
            "read the class names from the data"
        ) from None


def write(workdir: Path, info: DatasetInfo) -> None:
    """Write the description into a run's folder.

    Raises:
      OSError: the file cannot be written.
    """
    record = records.sealed(records.plain(dataclasses.asdict(info)))
    write_atomically(workdir / FILE, json.dumps(record, indent=2) + "\n")


def check_unchanged(workdir: Path, info: DatasetInfo, dataset: str) -> None:
    """Check that a run resumes on the dataset that it was started on.

    Args:
      workdir: folder of the run.
      info: description of the dataset that is open now.
      dataset: name of that dataset. A folder may have moved if its files are the same.

    Raises:
      UserError: the dataset differs; the message names the difference.
    """
    recorded = read(workdir)
    fields = [field.name for field in dataclasses.fields(DatasetInfo)]
    if recorded is None:  # a run of an earlier version
        pairs = [("dataset", read_config(workdir).dataset, dataset)]
    else:
        pairs = [(name, getattr(recorded, name), getattr(info, name)) for name in fields]
    for name, before, now in pairs:
        if before != now:
            raise UserError(
                f"{name} is {now}; expected {before}, as when the run in {workdir} was started; "
                "restore the dataset, or choose another `workdir`"
            )


def _digest(paths: Sequence[str]) -> str:
    """Return a digest of the paths below their common folder."""
    root = os.path.commonpath(paths)
    names = "\0".join(path[len(root) :] for path in paths)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]
