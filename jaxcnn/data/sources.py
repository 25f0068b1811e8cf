"""The sources of streamed images: folders of files and records of TFDS, read but not decoded.

`folder:DIR` holds DIR/train/CLASS/* and DIR/val/CLASS/*, or DIR/test/CLASS/* if there is no val.
Hidden files and files without an image extension are ignored. `tfds:NAME` is a dataset that
tensorflow-datasets has prepared as array_record.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from jaxcnn.data import datasets
from jaxcnn.errors import RunError, UserError

PREFIXES = ("folder:", "tfds:")


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


def open_source(name: str, data_dir: datasets.PathLike | None) -> Source:
    """Open the source whose name begins with one of `PREFIXES`.

    Args:
      name: `folder:DIR`, or `tfds:NAME`; NAME may end in `/CONFIG` and `:VERSION`.
      data_dir: directory of TFDS's data; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.

    Raises:
      UserError: there is no such dataset, or its layout is not the expected one.
    """
    kind, _, place = name.partition(":")
    if kind == "folder":
        return _open_folder(pathlib.Path(place).expanduser())
    return _open_tfds(place, datasets.tfds_dir(data_dir))


class Files:
    """Image files and their labels."""

    def __init__(self, paths: list[str], labels: list[int]) -> None:
        self.paths = paths
        self._labels = np.array(labels, np.int32)  # smaller than a list of objects

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Encoded:
        path = self.paths[row]
        try:
            return Encoded(pathlib.Path(path).read_bytes(), int(self._labels[row]), path)
        except OSError as error:
            raise RunError(f"cannot read {path}: {error.strerror}") from error


def _open_folder(folder: pathlib.Path) -> Source:
    splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
    if splits[:1] != ["train"] or len(splits) == 1:
        raise UserError(
            f"{folder} has {', '.join(splits) or 'neither train, val nor test'}; "
            "expected images in train/CLASS/ and in val/CLASS/ or test/CLASS/"
        )
    train, test = folder / "train", folder / splits[1]
    class_names = _subfolders(train)
    if unknown := sorted(set(_subfolders(test)) - set(class_names)):
        raise UserError(
            f"{test} has classes that are missing from {train}: {', '.join(unknown)}; "
            "add training images of them or remove their folders"
        )
    return Source(_list_files(train, class_names), _list_files(test, class_names), class_names, 3)


def _subfolders(folder: pathlib.Path) -> tuple[str, ...]:
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".")))


def _list_files(folder: pathlib.Path, class_names: tuple[str, ...]) -> Files:
    suffixes = Image.registered_extensions()
    paths, labels = [], []
    for label, name in enumerate(class_names):
        files = sorted(os.listdir(folder / name)) if (folder / name).is_dir() else []
        files = [file for file in files if os.path.splitext(file)[1].lower() in suffixes]
        files = [file for file in files if not file.startswith(".")]
        paths += [os.path.join(folder, name, file) for file in files]
        labels += [label] * len(files)
    if not paths:
        raise UserError(f"{folder} has no images; expected CLASS/* with images of each class")
    return Files(paths, labels)


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
            f"there is no prepared dataset {name!r} in {data_dir}; set --data-dir or TFDS_DATA_DIR "
            f"to the directory that holds it ({error})"
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
