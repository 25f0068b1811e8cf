"""Atomic writes, reads of regular files only, and the user's cache directory."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import stat
from pathlib import Path
from typing import BinaryIO


def cache_dir(*parts: str) -> pathlib.Path:
    """Return the user's cache directory or a folder inside it; create it with mode 0700.

    The directory is `JAXCNN_CACHE_DIR`, else `jaxcnn` in `XDG_CACHE_HOME`, else `~/.cache/jaxcnn`.

    Args:
      *parts: names of nested folders, outermost first.

    Raises:
      OSError: it cannot be created.
    """
    path = pathlib.Path(
        os.path.expanduser(
            os.environ.get("JAXCNN_CACHE_DIR")
            or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "jaxcnn")
        )
    )
    if path.parts[0].startswith("~"):
        raise FileNotFoundError(f"no home folder is known for {path}; set JAXCNN_CACHE_DIR")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in parts:  # `parents=True` would give those in between the default mode
        path = path / part
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk, so that a power cut cannot undo it.

    Raises:
      OSError: the disk reports an error.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems sync no folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush a folder, and all files and folders inside it, to the disk.

    Raises:
      OSError: the disk reports an error.
    """
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file; after a kill, a failed write or a power cut, it is the old or the new one.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name without the content
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # The error of a full disk does not name the file.
        raise OSError(error.errno, error.strerror, str(path)) from error


def open_regular(path: str | os.PathLike[str], *, max_bytes: int) -> BinaryIO:
    """Open a file that may come from anywhere for reading; never wait for a fifo or a device.

    Args:
      path: path of the file; a link to a file is followed.
      max_bytes: largest accepted size.

    Raises:
      ValueError: the path is no regular file, or the file is too large.
      OSError: the file cannot be opened.
    """
    _check_regular(os.stat(path), max_bytes)
    # Another process may replace the file after the check; without a wait, a fifo is then empty.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    try:
        _check_regular(os.fstat(file.fileno()), max_bytes)
    except ValueError:
        file.close()
        raise
    return file


def _check_regular(status: os.stat_result, max_bytes: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "a special file")
        raise ValueError(f"it is {kind}; expected a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"it has {status.st_size:,} bytes; expected at most {max_bytes:,}")


_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
