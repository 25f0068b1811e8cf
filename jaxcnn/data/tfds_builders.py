"""tensorflow-datasets' MNIST and CIFAR-10, prepared and read without TensorFlow.

TFDS's own builders define the features, the addresses and the checksums. The subclasses here only
read the original files in another way, and store array_record.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pathlib
import tarfile
import types

import numpy as np
import requests
import tensorflow_datasets as tfds
from google.protobuf import json_format
from jaxtyping import Int32, UInt8
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.resource import get_dl_fname
from tensorflow_datasets.core.file_adapters import FileFormat
from tensorflow_datasets.image_classification import cifar, mnist

from jaxcnn.errors import UserError
from jaxcnn.files import open_regular

_CONNECT_SECONDS = 10


class Mnist(mnist.MNIST, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's MNIST, with its files unpacked by gzip and its images encoded by Pillow."""

    name = "mnist"
    url_infos = mnist.MNIST.url_infos

    def _split_generators(self, dl_manager):
        # Skip extraction, because TFDS needs TensorFlow for it.
        return super()._split_generators(
            types.SimpleNamespace(download_and_extract=dl_manager.download)
        )

    def _generate_examples(self, num_examples, data_path, label_path):
        del num_examples  # the files hold it
        examples = zip(_read_idx(data_path), _read_idx(label_path), strict=True)
        for index, (image, label) in enumerate(examples):
            yield index, {"image": _encode_png(image), "label": label}


class Cifar10(cifar.Cifar10, skip_registration=True):  # type: ignore[call-arg]
    """TFDS's CIFAR-10, with its archive unpacked by tarfile and its images encoded by Pillow."""

    name = "cifar10"
    url_infos = cifar.Cifar10.url_infos

    def _split_generators(self, dl_manager):
        source = self._cifar_info
        with tarfile.open(dl_manager.download(source.url)) as archive:
            files = {
                member.name.removeprefix(source.prefix): archive.extractfile(member).read()
                for member in archive
                if member.isfile()
            }
        self.info.features["label"].names = files[source.label_files[0]].decode().split()
        return {
            split: self._generate_examples(f"{split}_", b"".join(files[name] for name in names))
            for split, names in (("train", source.train_files), ("test", source.test_files))
        }

    def _generate_examples(self, split_prefix, records):
        rows = np.frombuffer(records, np.uint8).reshape(-1, 1 + 3 * 32 * 32)  # label, then planes
        for index, row in enumerate(rows):
            image = row[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            record = {"id": f"{split_prefix}{index:05d}", "image": _encode_png(image)}
            yield index, record | {"label": row[0]}


BUILDERS: dict[str, type[tfds.core.DatasetBuilder]] = {"mnist": Mnist, "cifar10": Cifar10}


def prepared_builder(
    name: str,
    version: str,
    data_dir: pathlib.Path,
    beside: pathlib.Path,
    manual_dir: pathlib.Path | None,
) -> tfds.core.DatasetBuilder:
    """Return a builder whose data is prepared and readable, in `data_dir` if possible.

    Args:
      name: a key of `BUILDERS`.
      version: the version to read, or to prepare.
      data_dir: directory of TFDS's data.
      beside: directory to use if `data_dir` holds the data in a format that only TensorFlow reads.
      manual_dir: folder of the original files, which replace the download.

    Raises:
      UserError: the data is missing and cannot be prepared, or its description is corrupt; the
        message names the sources that were tried.
    """
    builder = _builder(name, version, data_dir)
    if _is_prepared(builder) and not _is_readable(builder):
        builder = _builder(name, version, beside)
    if not _is_prepared(builder):
        _prepare(builder, data_dir / "downloads", manual_dir)
        builder = _builder(name, version, builder.data_dir_root)
    return builder


def read_split(
    builder: tfds.core.DatasetBuilder, split: str
) -> tuple[UInt8[np.ndarray, "num_images height width channels"], Int32[np.ndarray, " num_images"]]:
    """Read the images and labels of a split, in TFDS's order.

    Raises:
      UserError: the files are corrupt.
    """
    encoded = {"image": tfds.decode.SkipDecoding()}
    shape = builder.info.features["image"].shape
    try:
        if has_random_access(builder):
            source = builder.as_data_source(split, decoders=encoded)
            examples = source.__getitems__(range(len(source)))  # twice as fast as single reads
        else:
            examples = tfds.as_numpy(builder.as_dataset(split=split, decoders=encoded))
        images, labels = zip(
            *((_decode_png(example["image"], shape), example["label"]) for example in examples),
            strict=True,
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{builder.data_dir} is corrupt; remove that folder to prepare the data again ({error})"
        ) from error
    return np.stack(images), np.array(labels, np.int32)


def _builder(name: str, version: str, data_dir: str | os.PathLike[str]) -> tfds.core.DatasetBuilder:
    try:
        return BUILDERS[name](data_dir=data_dir, version=version)
    except json_format.ParseError as error:
        raise UserError(
            f"{pathlib.Path(data_dir, name, version)} is corrupt; "
            f"remove that folder to prepare the data again ({error})"
        ) from error


def _is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    # TFDS's own `is_prepared` logs a warning if the data is missing.
    return (builder.data_path / "dataset_info.json").exists()


def has_random_access(builder: tfds.core.DatasetBuilder) -> bool:
    """Return whether TFDS can read the prepared data without TensorFlow."""
    return bool(builder.info.available_file_formats() & FileFormat.with_random_access())


def _is_readable(builder: tfds.core.DatasetBuilder) -> bool:
    return has_random_access(builder) or importlib.util.find_spec("tensorflow") is not None


def _prepare(
    builder: tfds.core.DatasetBuilder, download_dir: pathlib.Path, manual_dir: pathlib.Path | None
) -> None:
    """Write the dataset as array_record, from `manual_dir` or, without one, from downloads."""
    if builder.data_path.exists():
        raise UserError(
            f"{builder.data_dir} is incomplete: it has no dataset_info.json; remove that folder to "
            "prepare the data again"
        )
    try:
        _check_sources(builder, download_dir, manual_dir)
        builder.download_and_prepare(
            download_dir=download_dir,
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, force_checksums_validation=True, try_download_gcs=False
            ),
            file_format=FileFormat.ARRAY_RECORD,
        )
    except NonMatchingChecksumError as error:
        message = " ".join(str(error).partition("To debug")[0].split())
        raise UserError(f"{builder.name} cannot be prepared: {message}") from error
    except (OSError, tfds.download.DownloadError) as error:
        if _is_prepared(builder):
            return  # another process has prepared it meanwhile
        files = ", ".join(info.filename for info in builder.url_infos.values())
        origin = manual_dir or os.path.dirname(next(iter(builder.url_infos)))
        raise UserError(
            f"{builder.name} {builder.version} is not in {builder.data_dir} and cannot be prepared "
            f"from {origin} ({error}). Set --data-dir or TFDS_DATA_DIR to a directory where TFDS "
            f"prepared it, or --manual-dir to a folder with {files}, or choose the dataset mnist5k "
            "instead"
        ) from error


def _check_sources(
    builder: tfds.core.DatasetBuilder, download_dir: pathlib.Path, manual_dir: pathlib.Path | None
) -> None:
    """Raise OSError if an original file is missing and its server cannot be reached.

    TFDS itself tries an unreachable server ten times, for minutes, without a time limit.
    """
    for url, info in builder.url_infos.items():
        file = (manual_dir or download_dir / "manual") / info.filename
        if _is_regular(file, info.size) or any(
            download_dir.rglob(get_dl_fname(url, info.checksum))
        ):
            continue
        if manual_dir is not None:
            raise FileNotFoundError(f"{file} does not exist")
        requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=True).raise_for_status()


def _is_regular(path: pathlib.Path, size: int) -> bool:
    """Return whether there is a file; raise OSError if it is a fifo, a device or far too large."""
    try:
        open_regular(path, max_bytes=2 * size).close()
    except FileNotFoundError:
        return False
    except ValueError as error:
        raise OSError(f"{path} cannot be used: {error}") from error
    return True


def _read_idx(path: pathlib.Path) -> np.ndarray:
    """Read a gzipped IDX file: two zero bytes, type, rank, sizes, values."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, ">i4", count=rank, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _encode_png(image: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image).save(png, format="PNG")
    return png.getvalue()


def _decode_png(png: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).reshape(shape)
