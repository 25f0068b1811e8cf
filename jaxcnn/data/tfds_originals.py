"""The original files of datasets of tensorflow-datasets (TFDS), and how they are parsed."""

from __future__ import annotations

import functools
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import (
    cifar,
    cifar10_1,
    cifar10_corrupted,
    mnist,
    mnist_corrupted,
)

from jaxcnn.data import originals


class Original(NamedTuple):
    """The original files of a dataset.

    Attributes:
      base: TFDS's builder.
      splits: split -> names of its files, without .gz and without the folders of an archive.
      parse: `(*contents of the files of a split) -> images, labels [n, features]`.
      labels: names of the features that the columns of the labels are.
      class_names: feature -> name of the file with its class names, if there is one.
      python_archive: name of an archive of pickles with the same content.
      url: address of the folder with the files, for datasets that TFDS does not have.
      md5: checksums of files that TFDS does not use.
    """

    base: type[tfds.core.GeneratorBasedBuilder]
    splits: dict[str, tuple[str, ...]]
    parse: Callable[..., tuple[np.ndarray, np.ndarray]]
    labels: tuple[str, ...] = ("label",)
    class_names: Mapping[str, str] = types.MappingProxyType({})
    python_archive: str | None = None
    url: str | None = None
    md5: Mapping[str, str] = types.MappingProxyType({})

    def names(self) -> list[str]:
        """Return the names of all files."""
        return [*self.class_names.values(), *(n for names in self.splits.values() for n in names)]

    def sources(self) -> dict[str, str]:
        """Return the files to download: file name -> address."""
        names = self.names()
        if self.url is not None:
            return {f"{name}.gz": f"{self.url}{name}.gz" for name in names}
        urls = {info.filename: url for url, info in self.base.url_infos.items()}
        single = {file: url for file, url in urls.items() if file.removesuffix(".gz") in names}
        return single or urls  # otherwise an archive

    def download(self, dl_manager: tfds.download.DownloadManager) -> dict[str, bytes]:
        """Download the files, verify their checksums and return their contents.

        Raises:
          ValueError: a file is corrupt.
          OSError: a file cannot be downloaded.
        """
        sources = self.sources()
        if self.url is not None:
            folder = pathlib.Path(dl_manager.download_dir)
            paths = {
                file: originals.download(url, self.md5[file], folder)
                for file, url in sources.items()
            }
        else:
            paths = dl_manager.download(sources)
        if self.is_archived():
            return originals.read_archive(pathlib.Path(*paths.values()), self.names())
        return {
            file.removesuffix(".gz"): originals.unpack(file, originals.read_file(path))
            for file, path in paths.items()
        }

    def is_archived(self) -> bool:
        """Return whether a single archive holds all files."""
        return len(self.sources()) == 1

    def find_others(self, folder: pathlib.Path) -> dict[str, bytes] | None:
        """Return the contents of files that TFDS does not use: unpacked ones, or Python's archive.

        Args:
          folder: folder of the user.

        Returns:
          The contents by the names of the files, or None if the folder has all the files that TFDS
          uses, or lacks some.

        Raises:
          ValueError: a file is corrupt.
          OSError: a file cannot be read.
        """
        if self.url is None and all((folder / file).exists() for file in self.sources()):
            return None
        if self.python_archive is not None:
            names = {name: originals.python_name(name) for name in self.names()}
            archive = folder / self.python_archive
            pickles = None
            if archive.exists():
                self._check(archive)
                pickles = originals.read_archive(archive, {*names.values()})
            elif found := originals.find_unpacked(folder, {*names.values()}):
                pickles = {name: self._check(path) for name, path in found.items()}
            if pickles is not None:
                return {
                    name: originals.binary_content(name, pickles[python_name])
                    for name, python_name in names.items()
                }
        if (found := originals.find_unpacked(folder, self.names())) is None:
            return None
        return {
            name: originals.unpack(path.name, self._check(path)) for name, path in found.items()
        }

    def _check(self, path: pathlib.Path) -> bytes:
        content = originals.read_file(path)
        known = {info.filename: info.checksum for info in self.base.url_infos.values()}
        originals.check(path, content, (known | {**self.md5}).get(path.name))
        return content


class QMNIST(mnist.MNIST, skip_registration=True):  # type: ignore[call-arg]
    """QMNIST, which TFDS does not have, with the features of MNIST."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos: ClassVar[dict[str, Any]] = {}

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Yadav and Bottou 2019: MNIST reconstructed, with 60,000 test digits.",
            features=super()._info().features,
            supervised_keys=("image", "label"),
            homepage="https://github.com/facebookresearch/qmnist",
        )


def _idx(base: type, train: str = "train-%s", test: str = "t10k-%s", **fields: Any) -> Original:
    kinds = fields.pop("kinds", ("images-idx3-ubyte", "labels-idx1-ubyte"))
    names = {
        split: tuple(pattern % kind for kind in kinds)
        for split, pattern in (("train", train), ("test", test))
    }
    return Original(base, names, originals.parse_idx_pair, **fields)


def _cifar10_corrupted() -> Iterator[tuple[str, Original]]:
    for name, file in cifar10_corrupted._CORRUPTIONS_TO_FILENAMES.items():
        for severity in range(5):
            parse = functools.partial(originals.parse_npy, part=severity, num_parts=5)
            original = Original(
                cifar10_corrupted.Cifar10Corrupted, {"test": (file, "labels.npy")}, parse
            )
            yield f"cifar10_corrupted/{name}_{severity + 1}", original


# The MD5 checksums of CIFAR and QMNIST are those that torchvision records.
ORIGINALS: dict[str, Original] = {
    "mnist": _idx(
        mnist.MNIST,
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": _idx(mnist.FashionMNIST),
    "kmnist": _idx(mnist.KMNIST),
    "emnist/balanced": _idx(mnist.EMNIST, "emnist-balanced-train-%s", "emnist-balanced-test-%s"),
    "qmnist": _idx(
        *(QMNIST, "qmnist-train-%s", "qmnist-test-%s"),
        kinds=("images-idx3-ubyte", "labels-idx2-int"),
        url="https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
        md5={
            "qmnist-train-images-idx3-ubyte.gz": "ed72d4157d28c017586c42bc6afe6370",
            "qmnist-train-labels-idx2-int.gz": "0058f8dd561b90ffdd0f734c6a30e5e4",
            "qmnist-test-images-idx3-ubyte.gz": "1394631089c404de565df7b7aeaf9412",
            "qmnist-test-labels-idx2-int.gz": "5b5b05890a5e13444e108efe57b788aa",
        },
    ),
    "cifar10": Original(
        cifar.Cifar10,
        {
            "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
            "test": ("test_batch.bin",),
        },
        functools.partial(originals.parse_cifar, num_labels=1),
        class_names={"label": "batches.meta.txt"},
        python_archive="cifar-10-python.tar.gz",
        md5={
            "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
    ),
    "cifar100": Original(
        cifar.Cifar100,
        {"train": ("train.bin",), "test": ("test.bin",)},
        functools.partial(originals.parse_cifar, num_labels=2),
        labels=("coarse_label", "label"),
        class_names={"coarse_label": "coarse_label_names.txt", "label": "fine_label_names.txt"},
        python_archive="cifar-100-python.tar.gz",
        md5={
            "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
            "meta": "7973b15100ade9c7d40fb424638fde48",
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
    ),
    **{
        f"cifar10_1/{name}": Original(
            cifar10_1.Cifar10_1,
            {"test": (f"cifar10.1_{name}_data.npy", f"cifar10.1_{name}_labels.npy")},
            originals.parse_npy,
        )
        for name in ("v4", "v6")
    },
    **{
        f"mnist_corrupted/{name}": Original(
            mnist_corrupted.MNISTCorrupted,
            {
                split: (f"{name}/{split}_images.npy", f"{name}/{split}_labels.npy")
                for split in ("train", "test")
            },
            originals.parse_npy,
        )
        for name in mnist_corrupted._CORRUPTIONS
    },
    **dict(_cifar10_corrupted()),
}
