"""Folders of images: their splits and classes, and the image files below each class."""

from __future__ import annotations

import functools
import hashlib
import os
import unicodedata
from collections.abc import Iterator, Sequence
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


# The folder of test images is the first of these that exists.
TEST_NAMES = ("val", "valid", "validation", "test")

# Left behind by operating systems, storage servers and editors; hidden files are ignored, too.
IGNORED = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
IGNORED |= {"lost+found"}


class Files(NamedTuple):
    """Paths of the images of a split, and the index of the class of each."""

    paths: list[str]
    labels: list[int]


class Folder(NamedTuple):
    """The image files of both splits, and the names of the classes."""

    train: Files
    test: Files
    class_names: tuple[str, ...]


def list_folder(folder: Path, *, hold_out: float = 0.0) -> Folder:
    """List the images of each class, those in sub-folders of the class included.

    Hidden files, IGNORED folders and files without the extension of an image are ignored. An entry
    that has such an extension but is no file, such as a fifo or a broken link, is listed: reading
    it is an error that names it.

    Args:
      folder: directory with train/CLASS/* and one of TEST_NAMES, such as val/CLASS/*; to hold out
        images, directory with train/CLASS/* or CLASS/*.
      hold_out: fraction of the images of each class that become test images. A hash of the class
        and the file name decides, so an image stays in its split when others are added.

    Raises:
      UserError: the layout is another one, a class has no training images, or a folder cannot be
        listed.
    """
    if not folder.is_dir():
        raise _no_folder(folder)
    train_folder, test_folder = _splits(folder, hold_out)
    class_names = _class_names(train_folder)
    train = [image_files(train_folder / name) for name in class_names]
    if test_folder is None:
        splits = [
            _hold_out(name, paths, hold_out) for name, paths in zip(class_names, train, strict=True)
        ]
        train, test = [kept for kept, _ in splits], [held_out for _, held_out in splits]
    else:
        found = {composed(name): name for name in _class_names(test_folder)}
        if unknown := sorted(found.keys() - set(map(composed, class_names))):
            raise UserError(
                f"{test_folder} has classes that are missing from {train_folder}: "
                f"{', '.join(unknown)}; expected some of {_some(class_names)}; add training images "
                "of them, or rename or remove their folders"
            )
        test = [image_files(test_folder / found.get(composed(name), name)) for name in class_names]
    if empty := [name for name, paths in zip(class_names, train, strict=True) if not paths]:
        raise UserError(
            f"{train_folder} has no images of {', '.join(empty)}; expected at least one in each "
            "class; add images or remove the folders"
        )
    if len(class_names) == 1:
        raise UserError(
            f"{train_folder} has a single class, {class_names[0]}; "
            "expected folders of two classes or more"
        )
    if not any(test):
        raise UserError(f"{test_folder or folder} has no test images; expected some in CLASS/")
    return Folder(_flat(train), _flat(test), class_names)


def list_split(folder: Path, split: str | None) -> tuple[Files, tuple[str, ...]]:
    """List the images of one split, and the names of its classes.

    Args:
      folder: directory with SPLIT/CLASS/*; without folders of splits, it is the split itself.
      split: "train", "test", or "val" for the others of TEST_NAMES; by default the first of
        TEST_NAMES that exists.

    Raises:
      UserError: there is no such split, it has no images, or a folder cannot be listed.
    """
    if not folder.is_dir():
        raise _no_folder(folder)
    names = TEST_NAMES if split is None else TEST_NAMES[:-1] if split == "val" else (split,)
    found = [folder / name for name in names if (folder / name).is_dir()]
    found = [place for place in found if _class_folders(place)]
    if not found and split is not None:
        raise UserError(f"{folder} has no split {split}; expected images in {split}/CLASS/")
    place = found[0] if found else folder
    class_names = _class_names(place)
    images = [image_files(place / name) for name in class_names]
    if not any(images):
        raise UserError(f"{place} has no images; expected some in CLASS/")
    return _flat(images), class_names


def _no_folder(path: Path) -> UserError:
    state = "is no folder" if os.path.lexists(path) else "does not exist"
    return UserError(f"{path} {state}; set `dataset` to folder:DIR with a folder of images")


def _splits(folder: Path, hold_out: float) -> tuple[Path, Path | None]:
    """Return the folders of classes for training and for testing; None to hold out images."""
    # A folder called train that has no classes may be a class: bus, car, train.
    train, *tests = (folder / name for name in ("train", *TEST_NAMES))
    tests = [test for test in tests if test.is_dir()]
    if hold_out:
        has_train = train.is_dir() and _class_folders(train)
        if any(_class_folders(test) for test in tests):
            raise UserError(
                f"`hold_out` is {hold_out}, but {folder} has {tests[0].name}; remove one of the two"
            )
        root = train if has_train else folder
        if _class_folders(root):
            return root, None
    elif train.is_dir() and tests:
        if len(tests) > 1 and tests[1].name != "test":
            raise UserError(
                f"{folder} has {tests[0].name} and {tests[1].name}; expected one of the two; "
                "rename the other"
            )
        if not _class_folders(train):
            raise UserError(f"{train} has no folders of classes; expected images in CLASS/")
        return train, tests[0]
    if not (names := _class_folders(folder)):
        raise UserError(
            f"{folder} has no folders of classes; expected images in train/CLASS/ and in "
            "val/CLASS/ or test/CLASS/; for a single class, pass the folder that contains it"
        )
    raise UserError(
        f"{folder} has the folders {_some(names)}; expected images in "
        "train/CLASS/ and in val/CLASS/ or test/CLASS/; for a folder of classes without test "
        "images, set `hold_out` to 0.1"
    )


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f"{', '.join(map(shown, names[:5]))}{more}"


def composed(name: str) -> str:
    """Return a name with composed accents, by which names of macOS equal those of other systems."""
    return unicodedata.normalize("NFC", name)


def _hold_out(class_name: str, paths: list[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split the images of a class; each part gets at least one, the first the only one."""
    if len(paths) < 2:
        return paths, []
    limit = fraction * 2**64
    hashes = {path: _hash(f"{class_name}/{os.path.basename(path)}") for path in paths}
    held_out = {path for path, value in hashes.items() if value < limit}
    first, *_, last = sorted(paths, key=hashes.__getitem__)
    held_out = (held_out | {first}) - {last}
    return [p for p in paths if p not in held_out], [p for p in paths if p in held_out]


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")


def _class_names(folder: Path) -> tuple[str, ...]:
    names = _class_folders(folder)
    for name in names:
        if not name.isprintable():  # a line break, an escape sequence, or bytes that are not UTF-8
            raise UserError(
                f"{folder} has a class folder called {name!a}; "
                "expected printable characters in UTF-8; rename the folder"
            )
    return tuple(names)


def _class_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(folder) if os.path.isdir(entry.path))


def image_files(folder: str | Path) -> list[str]:
    """Return the paths of the images in a folder and its sub-folders, in order.

    Raises:
      UserError: a folder cannot be listed, or a link leads back to it.
    """
    return sorted(_walk(str(folder))) if os.path.isdir(folder) else []


def _walk(folder: str) -> Iterator[str]:
    for entry in _entries(folder):
        if os.path.splitext(entry.name)[1].lower() in _extensions():
            yield entry.path
        elif os.path.isdir(entry.path):
            here, below = os.path.realpath(folder), os.path.realpath(entry.path)
            if os.path.commonpath([here, below]) == below:
                raise UserError(
                    f"{shown(entry.path)} is a link to {shown(below)}, which contains it; "
                    "expected folders without loops; remove the link"
                )
            yield from _walk(entry.path)


@functools.cache
def _extensions() -> set[str]:
    return {name for name, kind in Image.registered_extensions().items() if kind in FORMATS}


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not ignored."""
    try:
        with os.scandir(folder) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.name not in IGNORED]
    except OSError as error:
        raise UserError(
            f"{shown(str(folder))} cannot be listed ({error.strerror}); make it readable"
        ) from None


def _flat(classes: list[list[str]]) -> Files:
    paths = [path for of_class in classes for path in of_class]
    return Files(paths, [label for label, of_class in enumerate(classes) for _ in of_class])


def shown(path: str) -> str:
    """Return a path as one line of printable characters, for a message."""
    return path if path.isprintable() else ascii(path)
