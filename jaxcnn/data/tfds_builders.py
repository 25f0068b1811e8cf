"""Datasets of tensorflow-datasets (TFDS), prepared and read without TensorFlow.

TFDS's own builders define the features, the addresses and the checksums. The builders here only
read the original files in another way, and store array_record.
"""

from __future__ import annotations

import importlib.util
import io
import os
import pathlib

import numpy as np
import requests
import tensorflow_datasets as tfds
from google.protobuf import json_format
from jaxtyping import Int32, UInt8
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.resource import get_dl_fname
from tensorflow_datasets.core.file_adapters import FileFormat

from jaxcnn import report
from jaxcnn.data import originals
from jaxcnn.data.tfds_originals import ORIGINALS
from jaxcnn.errors import UserError
from jaxcnn.files import open_regular

_CONNECT_SECONDS = 10


def builder_class(name: str) -> type[tfds.core.GeneratorBasedBuilder]:
    """Return TFDS's builder of a dataset, changed to read the original files without TensorFlow.

    Args:
      name: a key of `ORIGINALS`.
    """
    original = ORIGINALS[name]

    class Builder(original.base, skip_registration=True):  # type: ignore[call-arg, name-defined]
        name = original.base.name
        url_infos = original.base.url_infos
        others: dict[str, bytes] | None = None  # contents of files that TFDS does not use

        def _log_download_bytes(self):
            """Print nothing; `_prepare` says what is prepared."""

        def _log_download_done(self):
            """Print nothing."""

        def _split_generators(self, dl_manager):
            files = self.others or original.download(dl_manager)
            for feature, file in original.class_names.items():
                self.info.features[feature].names = files[file].decode().split()
            return {
                split: self._generate_examples(split, *original.parse(*map(files.get, names)))
                for split, names in original.splits.items()
            }

        def _generate_examples(self, split, images, labels):
            features = self.info.features
            if images.dtype != np.uint8 or images.shape[1:] != features["image"].shape:
                raise ValueError(
                    f"its images are {images.dtype} {images.shape[1:]}; expected uint8 "
                    f"{features['image'].shape}"
                )
            for index, (image, row) in enumerate(zip(images, labels, strict=True)):
                record = dict(zip(original.labels, row, strict=True))
                record["image"] = _encode_png(image)
                if "id" in features:
                    record["id"] = f"{split}_{index:05d}"
                yield index, record

    return Builder


def prepared_builder(
    name: str,
    version: str,
    data_dir: pathlib.Path,
    beside: pathlib.Path,
    manual_dir: pathlib.Path | None,
) -> tfds.core.DatasetBuilder:
    """Return a builder whose data is prepared and readable, in `data_dir` if possible.

    Args:
      name: a key of `ORIGINALS`.
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
        _prepare(name, builder, data_dir / "downloads", manual_dir)
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
        config = name.partition("/")[2] or None
        return builder_class(name)(data_dir=data_dir, version=version, config=config)
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
    name: str,
    builder: tfds.core.DatasetBuilder,
    download_dir: pathlib.Path,
    manual_dir: pathlib.Path | None,
) -> None:
    """Write the dataset as array_record, from `manual_dir` or, without one, from downloads."""
    if builder.data_path.exists():
        raise UserError(
            f"{builder.data_dir} is incomplete: it has no dataset_info.json; remove that folder to "
            "prepare the data again"
        )
    sources = ORIGINALS[name].sources()
    origin = manual_dir or os.path.dirname(next(iter(sources.values())))
    tfds.disable_progress_bar()  # it prints some 80 lines, "Downloading" also for local files
    try:
        if manual_dir is not None:
            builder.others = ORIGINALS[name].find_others(manual_dir)
        if builder.others is None:
            _check_sources(builder, sources, download_dir, manual_dir)
        report.say(f"Preparing {name} in {builder.data_dir} from {origin}")
        builder.download_and_prepare(
            download_dir=download_dir,
            download_config=tfds.download.DownloadConfig(
                manual_dir=manual_dir, force_checksums_validation=True, try_download_gcs=False
            ),
            file_format=FileFormat.ARRAY_RECORD,
        )
    except NonMatchingChecksumError as error:
        message = " ".join(str(error).partition("To debug")[0].split())
        raise UserError(f"{name} cannot be prepared: {message}") from error
    except ValueError as error:
        message = " ".join(str(error).split())
        raise UserError(f"{name} cannot be prepared from {origin}: {message}") from error
    except (OSError, tfds.download.DownloadError) as error:
        if _is_prepared(builder):
            return  # another process has prepared it meanwhile
        raise UserError(_missing(name, builder, origin, error)) from error


def _missing(name: str, builder: tfds.core.DatasetBuilder, origin: object, error: Exception) -> str:
    files = [*ORIGINALS[name].sources()]
    shown = files[0] if len(files) == 1 else f"{files[0]} and {len(files) - 1} others"
    is_offline = isinstance(error, requests.ConnectionError)
    reason = "no connection to the server" if is_offline else " ".join(str(error).split())
    return (
        f"{name} is not in {builder.data_dir} and cannot be prepared from {origin}: {reason}; set "
        f"`data_dir` to prepared data or `manual_dir` to a folder with {shown}, or train on mnist5k"
    )


def _check_sources(
    builder: tfds.core.DatasetBuilder,
    sources: dict[str, str],
    download_dir: pathlib.Path,
    manual_dir: pathlib.Path | None,
) -> None:
    """Raise OSError if an original file is missing and its server cannot be reached.

    TFDS itself tries an unreachable server ten times, for minutes, without a time limit.
    """
    for name, url in sources.items():
        info = builder.url_infos.get(url)
        downloaded = get_dl_fname(url, info.checksum) if info else name
        file = (manual_dir or download_dir / "manual") / name
        if _is_regular(file, info.size if info else originals.MAX_BYTES) or any(
            download_dir.rglob(downloaded)
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


def _encode_png(image: np.ndarray) -> bytes:
    png = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, format="PNG")
    return png.getvalue()


def _decode_png(png: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png))).reshape(shape)
