"""The sources of streamed images: folders of files and records of TFDS, read but not decoded.

`folder:DIR` is a folder of images; see `folders.list_folder`. `tfds:NAME` is a dataset that
tensorflow-datasets has prepared as array_record.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from jaxcnn.data import datasets, folders
from jaxcnn.errors import RunError, UserError
from jaxcnn.files import open_regular
from jaxcnn.paths import local_path

PREFIXES = ("folder:", "tfds:")
MAX_BYTES = 2**29  # of an image file: more than an uncompressed image of 16-bit colours needs


class BadImageError(UserError):
    """An image that is corrupt, too small or no regular file; it may be skipped.

    Args:
      name: path or name of the image.
      reason: description of the fault.
    """

    def __init__(self, name: str, reason: object) -> None:
        self.name = folders.shown(name)
        self.reason = " ".join(str(reason).split()) or type(reason).__name__
        super().__init__(f"{self.name} is a bad image: {self.reason}")


class Encoded(NamedTuple):
    """A stored example: the bytes of an image file, its label and its name."""

    image: bytes
    label: int
    name: str


class Examples(Protocol):
    """A split with random access, from several threads."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> Encoded: ...


@dataclasses.dataclass(frozen=True)
class Source:
    """Both splits of a dataset.

    Attributes:
      train: training examples.
      test: examples of the validation split, or of the test split if there is none.
      class_names: name of each label.
      channels: 1 for grey levels, 3 for colours.
    """

    train: Examples
    test: Examples
    class_names: tuple[str, ...]
    channels: int


def open_source(name: str, data_dir: datasets.PathLike | None, *, hold_out: float = 0.0) -> Source:
    """Open the source whose name begins with one of `PREFIXES`.

    Args:
      name: `folder:DIR`, or `tfds:NAME`; NAME may end in `/CONFIG` and `:VERSION`.
      data_dir: directory of TFDS's data; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
      hold_out: fraction of the images of a folder that become test images; see
        `folders.list_folder`.

    Raises:
      UserError: there is no such dataset, or its layout is not the expected one.
    """
    kind, _, place = name.partition(":")
    if kind == "folder":
        listed = folders.list_folder(local_path(place, "`dataset`"), hold_out=hold_out)
        return Source(Files(listed.train), Files(listed.test), listed.class_names, 3)
    return _open_tfds(place, datasets.tfds_dir(data_dir))


class Files:
    """Image files and their labels."""

    def __init__(self, files: folders.Files) -> None:
        self.paths = files.paths
        self.labels = np.array(files.labels, np.int32)  # smaller than a list of objects

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Encoded:
        path = self.paths[row]
        with self.open(row) as file:
            try:
                return Encoded(file.read(MAX_BYTES), int(self.labels[row]), path)
            except OSError as error:
                raise RunError(f"cannot read {path}: {error.strerror}") from error

    def open(self, row: int) -> BinaryIO:
        """Open the file of a row.

        Raises:
          BadImageError: the path is no regular file that may be read.
          RunError: the file has vanished since the folder was listed, or the disk fails.
        """
        path = self.paths[row]
        try:
            return open_regular(path, max_bytes=MAX_BYTES)
        except ValueError as error:
            raise BadImageError(path, error) from error
        except OSError as error:
            if error.errno in (errno.EACCES, errno.ELOOP) or os.path.islink(path):
                raise BadImageError(path, error.strerror) from error
            raise RunError(f"cannot read {path}: {error.strerror}") from error


class Subset:
    """Some of the examples of a split.

    Args:
      examples: all examples.
      rows: rows to keep.
    """

    def __init__(self, examples: Examples, rows: Sequence[int] | np.ndarray) -> None:
        self._examples = examples
        self._rows = rows
        paths = getattr(examples, "paths", None)  # of image files
        self.paths = [paths[row] for row in rows] if paths else ()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Encoded:
        return self._examples[int(self._rows[row])]


class _Records:
    def __init__(self, source: Sequence[dict[str, Any]], name: str) -> None:
        self._source = source
        self._name = name

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> Encoded:
        try:
            example = self._source[int(row)]
        except Exception as error:  # array_record and Grain raise any type of exception
            raise RunError(f"cannot read {self._name}, image {row}: {error}") from error
        return Encoded(example["image"], int(example["label"]), f"{self._name}, image {row}")


def _open_tfds(name: str, data_dir: pathlib.Path) -> Source:
    # Late: importing TFDS takes most of a second.
    import tensorflow_datasets as tfds
    from google.protobuf import json_format
    from tensorflow_datasets.core.read_only_builder import builder_from_files

    from jaxcnn.data.tfds_builders import has_random_access

    try:
        builder = builder_from_files(name, data_dir=data_dir)
    except (json_format.ParseError, json.JSONDecodeError) as error:  # a subclass of ValueError
        raise UserError(
            f"the description of {name} in {data_dir} is corrupt; prepare it again ({error})"
        ) from None
    except (tfds.core.DatasetNotFoundError, ValueError) as error:  # ValueError: an invalid name
        raise UserError(
            f"there is no prepared dataset {name!r} in {data_dir}; set `data_dir` or TFDS_DATA_DIR "
            f"to the directory that holds it ({str(error).splitlines()[0]})"
        ) from None
    if not has_random_access(builder):
        raise UserError(
            f"{builder.data_dir} holds records that only TensorFlow reads; prepare them again with "
            "tfds.builder(...).download_and_prepare(file_format='array_record')"
        )
    features, splits = builder.info.features, builder.info.splits
    tests = [split for split in ("validation", "test") if split in splits]
    if not {"image", "label"} <= features.keys() or "train" not in splits or not tests:
        raise UserError(
            f"{name} has {', '.join(features)} in {', '.join(splits)}; expected image and label, "
            "in train and in validation or test"
        )
    if not isinstance(features["label"], tfds.features.ClassLabel):
        raise UserError(f"the labels of {name} are {features['label']}; expected a ClassLabel")
    decoders = {"image": tfds.decode.SkipDecoding()}
    train, test = (
        _Records(builder.as_data_source(split, decoders=decoders), f"{name} {split}")
        for split in ("train", tests[0])
    )
    return Source(train, test, tuple(features["label"].names), features["image"].shape[-1])
