"""The lock of a run folder: one process trains in it at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, TypedDict

from jaxcnn import records
from jaxcnn.errors import UserError
from jaxcnn.files import open_regular

# What flock raises on file systems without locks, such as Lustre and some of FUSE and NFS.
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)

LOOK_SECONDS = 1.0  # more than `is_locked` holds a lock, on a loaded machine, too

_log = logging.getLogger(__name__)


class Owner(TypedDict):
    """The process that a lock file belongs to."""

    host: str
    pid: int
    started: str | None


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a folder while the context lasts; the system frees the lock when the process ends.

    On a file system without `flock`, a file that names its owner is the lock, and a warning says
    what that does not guarantee.

    Raises:
      UserError: another process holds the lock.
      OSError: the folder cannot be written.
    """
    # Without a wait, because opening a fifo for writing waits for a reader.
    with open(folder / ".lock", "a", opener=lambda p, f: os.open(p, f | os.O_NONBLOCK)) as file:
        try:
            _flock(file)
        except BlockingIOError:
            raise UserError(
                f"another process is training in {folder}; choose another `workdir`"
            ) from None
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
        else:
            yield
            return
    with _lock_file(folder / ".lock.owner"):
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process has locked a folder."""
    owner = folder / ".lock.owner"
    if owner.exists() and not _is_stale(owner):
        return True
    try:
        with open_regular(folder / ".lock", max_bytes=0) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):  # there is no such file, or none that can be locked
        pass
    return False


def _flock(file: TextIO) -> None:
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # maybe `is_locked` of another process, for a moment
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _lock_file(path: Path) -> Iterator[None]:
    if path.exists() and _is_stale(path):
        _log.warning("the process that locked %s has ended; the lock is removed", path.parent)
        path.unlink(missing_ok=True)
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        raise UserError(
            f"{path} says that another process is training in {path.parent} "
            f"({_describe(path)}); choose another `workdir`, or delete that file if it is not so"
        ) from None
    try:
        with open(descriptor, "w") as file:
            pid = os.getpid()
            owner: Owner = {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}
            file.write(records.dumps(owner))
        _log.warning(
            "%s lies on a file system without flock; %s locks it instead. If this process is "
            "killed, a process on another host cannot know and refuses to train until the file is "
            "deleted",
            *(path.parent, path),
        )
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    """Return whether the owner of a lock file ran on this host and has ended."""
    owner = _owner(path)
    if owner is None or owner["host"] != socket.gethostname():
        return False
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # a process of another user
        pass
    return owner["started"] != _started(owner["pid"])  # else its number was given away again


def _owner(path: Path) -> Owner | None:
    try:
        return records.convert(records.unsealed(records.read(path)), Owner)
    except (OSError, UserError):  # it is being written
        return None


def _describe(path: Path) -> str:
    owner = _owner(path)
    return f"process {owner['pid']} on {owner['host']}" if owner else "its owner is not readable"


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks since the boot; None without /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
