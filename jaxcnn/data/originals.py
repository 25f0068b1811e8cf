"""The original files of datasets: found in a user's folder, unpacked, verified and parsed."""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import logging
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import requests
from jaxtyping import Int, UInt8

from jaxcnn.files import open_regular, write_atomically

MAX_BYTES = 2**32  # of an original file; CIFAR-10-C's archive has 2.9 GB
MAX_UNPACKED_BYTES = 2**30
CONNECT_SECONDS = 10

_logger = logging.getLogger(__name__)


# Finding and unpacking.


def find_unpacked(folder: Path, names: Iterable[str]) -> dict[str, Path] | None:
    """Find files, possibly with the ending .gz, in a folder or up to two levels below it.

    Returns:
      Name -> path, or None if no folder has all of the files.

    Raises:
      ValueError: several folders have them.
    """
    found = {}
    for place in (folder, *folder.glob("*"), *folder.glob("*/*")):
        paths = {
            name: path
            for name in names
            for path in (place / name, place / f"{name}.gz")  # the latter, if there are both
            if path.is_file()
        }
        if len(paths) == len({*names}):
            found[place] = paths
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(map(str, sorted(found)))} have the files; set `manual_dir` to one"
        )
    return next(iter(found.values()), None)


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
      ValueError: the path is no regular file, or the file is too large.
      OSError: the file cannot be read.
    """
    with open_regular(path, max_bytes=MAX_BYTES) as file:
        return file.read()


def unpack(name: str, content: bytes) -> bytes:
    """Return the content of a file, decompressed if its name ends in .gz.

    Raises:
      ValueError: the file is corrupt or decompresses to too much.
    """
    if not name.endswith(".gz"):
        return content
    try:
        with gzip.open(io.BytesIO(content)) as file:
            return _bounded(file.read(MAX_UNPACKED_BYTES + 1), name)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{name} is corrupt: {error}") from error


def read_archive(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of some files of a tar or zip archive, whatever folder they are in.

    Args:
      path: path of the archive; its type is found by its content.
      names: names of the files in the archive, without .gz and outer folders.

    Raises:
      ValueError: a file is missing, or the archive is corrupt or no regular file.
      OSError: the archive cannot be read.
    """
    wanted = {f"/{name}{ending}": name for name in names for ending in ("", ".gz")}
    found = {}
    with open_regular(path, max_bytes=MAX_BYTES) as file:
        try:
            for member, open_member in _members(file):
                for ending in filter(f"/{member}".endswith, wanted):
                    content = _bounded(open_member().read(MAX_UNPACKED_BYTES + 1), member)
                    found[wanted[ending]] = unpack(member, content)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is corrupt: {error}") from error
    if missing := set(wanted.values()) - set(found):
        raise ValueError(f"{path} has no {', '.join(sorted(missing))}")
    return found


def _members(file: BinaryIO) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the name of each file in an archive, and a function that opens it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                yield name, functools.partial(archive.open, name)
    else:
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            for member in filter(tarfile.TarInfo.isfile, tar):
                yield member.name, functools.partial(tar.extractfile, member)


def _bounded(content: bytes, name: str) -> bytes:
    if len(content) > MAX_UNPACKED_BYTES:
        raise ValueError(f"{name} unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    return content


def download(url: str, checksum: str, folder: Path) -> Path:
    """Download a file, unless the folder has it already.

    Raises:
      ValueError: its checksum differs.
      OSError: the server cannot be reached, or the file cannot be written.
    """
    path = folder / url.rpartition("/")[2]
    if not path.exists():
        with requests.get(url, timeout=CONNECT_SECONDS) as response:
            response.raise_for_status()
            check(url, response.content, checksum)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, response.content)
    return path


def check(place: str | Path, content: bytes, checksum: str | None) -> None:
    """Compare the checksum of a file; warn if none is known.

    Args:
      place: path or address of the file.
      content: its content.
      checksum: expected SHA-256 or MD5 checksum in hexadecimal.

    Raises:
      ValueError: the checksum differs.
    """
    if checksum is None:
        _logger.warning("%s is not verified, because no checksum of it is known", place)
        return
    algorithm = "sha256" if len(checksum) == 64 else "md5"
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != checksum:
        raise ValueError(f"{place} has the {algorithm} checksum {found}; expected {checksum}")


# Parsing.


def parse_idx(content: bytes) -> np.ndarray:
    """Return the array in an IDX file: two zero bytes, type, rank, sizes, values.

    Raises:
      ValueError: the content is no IDX file of uint8 or int32.
    """
    types = {8: ">u1", 12: ">i4"}
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in types:
        raise ValueError("expected an IDX file of uint8 or int32")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, types[content[2]], offset=4 + 4 * rank).reshape(shape)


def parse_idx_pair(
    images: bytes, labels: bytes
) -> tuple[UInt8[np.ndarray, "n h w 1"], Int[np.ndarray, "n 1"]]:
    """Return images and labels of two IDX files; of several columns of labels, the first."""
    rows = parse_idx(labels)
    return parse_idx(images)[..., None], rows.reshape(len(rows), -1)[:, :1]


def parse_cifar(
    *batches: bytes, num_labels: int
) -> tuple[UInt8[np.ndarray, "n 32 32 3"], UInt8[np.ndarray, "n labels"]]:
    """Return images and labels of CIFAR's binary files: labels, then three planes of pixels."""
    rows = np.frombuffer(b"".join(batches), np.uint8).reshape(-1, num_labels + 3 * 32 * 32)
    planes = rows[:, num_labels:].reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), rows[:, :num_labels]


def parse_npy(
    images: bytes, labels: bytes, *, part: int = 0, num_parts: int = 1
) -> tuple[UInt8[np.ndarray, "n h w c"], Int[np.ndarray, "n 1"]]:
    """Return images and labels of two .npy files, or one of several equal parts of them."""
    pair = [np.load(io.BytesIO(content), allow_pickle=False) for content in (images, labels)]
    pair[0], pair[1] = (np.split(array, num_parts)[part] for array in pair)
    return pair[0], pair[1].astype(np.int64).reshape(-1, 1)


# CIFAR's archives for Python hold pickles, which could run any code.


def python_name(name: str) -> str:
    """Return the name in CIFAR's archive for Python of a file of the binary archive."""
    metas = {"batches.meta.txt": "batches.meta"}
    metas |= dict.fromkeys(("coarse_label_names.txt", "fine_label_names.txt"), "meta")
    return metas.get(name, name.removesuffix(".bin"))


def binary_content(name: str, pickled: bytes) -> bytes:
    """Convert a file of CIFAR's archive for Python to the file `name` of the binary archive.

    Raises:
      ValueError: the file is corrupt, or holds anything but text, numbers and arrays.
    """
    try:
        batch: Mapping[bytes, Any] = _Unpickler(io.BytesIO(pickled), encoding="bytes").load()
        if name.endswith(".txt"):
            key = b"label_names" if name == "batches.meta.txt" else name[:-4].encode()
            return b"\n".join(batch[key]) + b"\n"
        keys = [b"labels"] if b"labels" in batch else [b"coarse_labels", b"fine_labels"]
        labels = np.array([batch[key] for key in keys], np.uint8).T
        pixels = np.frombuffer(batch[b"data"].state[-1], np.uint8).reshape(len(labels), -1)
    except Exception as error:  # a corrupt pickle raises any type of exception
        raise ValueError(f"{python_name(name)} is no batch of CIFAR ({error})") from error
    return np.hstack([labels, pixels]).tobytes()


class _Array:
    """Stands for NumPy's types in a pickle, so that unpickling calls no code of theirs."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if module.partition(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype"):
            return _Array
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")
