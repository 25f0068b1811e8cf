"""Folders of images: their splits and classes, and the image files below each class."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from jaxcnn.errors import UserError

# The formats that are decoded. Pillow knows more; of those, EPS would start Ghostscript, and films,
# vector graphics and textures are no photographs.
FORMATS = tuple("AVIF BMP DIB GIF ICO JPEG JPEG2000 MPO PCX PNG PPM QOI SGI TGA TIFF WEBP".split())


@functools.cache
def decoders() -> tuple[str, ...]:
    """Return those of FORMATS for which this Pillow has a decoder; MPO is decoded as JPEG."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class Files(NamedTuple):
    """Paths of the images of a split, and the index of the class of each."""

    paths: list[str]
    labels: list[int]


class Folder(NamedTuple):
    """The image files of both splits, and the names of the classes."""

    train: Files
    test: Files
    class_names: tuple[str, ...]


def list_folder(folder: Path) -> Folder:
    """List the images in a folder.

    Hidden files and folders, and files without the extension of an image, are ignored. An entry
    that has such an extension but is no file, such as a fifo or a broken link, is listed: reading
    it is an error that names it.

    Args:
      folder: directory with train/CLASS/* and val/CLASS/*, or test/CLASS/* if there is no val.

    Raises:
      UserError: the layout is another one, or a folder cannot be listed.
    """
    splits = [name for name in ("train", "val", "test") if (folder / name).is_dir()]
    if splits[:1] != ["train"] or len(splits) == 1:
        raise UserError(
            f"{folder} has {', '.join(splits) or 'neither train, val nor test'}; "
            "expected images in train/CLASS/ and in val/CLASS/ or test/CLASS/"
        )
    train, test = folder / "train", folder / splits[1]
    class_names = _class_names(train)
    if unknown := sorted(set(_class_names(test)) - set(class_names)):
        raise UserError(
            f"{test} has classes that are missing from {train}: {', '.join(unknown)}; "
            "add training images of them or remove their folders"
        )
    return Folder(_files(train, class_names), _files(test, class_names), class_names)


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(entry.name for entry in _entries(folder) if entry.is_dir())
    for name in names:
        if not name.isprintable():  # a line break, an escape sequence, or bytes that are not UTF-8
            raise UserError(
                f"{folder} has a class folder called {name!a}; "
                "expected printable characters in UTF-8; rename the folder"
            )
    return tuple(names)


def _files(folder: Path, class_names: tuple[str, ...]) -> Files:
    extensions = {name for name, kind in Image.registered_extensions().items() if kind in FORMATS}
    files = Files([], [])
    for label, name in enumerate(class_names):
        if not (folder / name).is_dir():
            continue
        found = [
            entry.path
            for entry in _entries(folder / name)
            if os.path.splitext(entry.name)[1].lower() in extensions
        ]
        files.paths.extend(sorted(found))
        files.labels.extend([label] * len(found))
    if not files.paths:
        raise UserError(f"{folder} has no images; expected CLASS/* with images of each class")
    return files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{folder} cannot be listed ({error.strerror}); make it readable") from None
