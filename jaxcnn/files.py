"""Atomic writes, and the user's cache directory."""

from __future__ import annotations

import contextlib
import os
import pathlib
from pathlib import Path


def cache_dir(*parts: str) -> pathlib.Path:
    """Return the user's cache directory or a folder inside it; create it with mode 0700.

    The directory is `JAXCNN_CACHE_DIR`, else `jaxcnn` in `XDG_CACHE_HOME`, else `~/.cache/jaxcnn`.

    Args:
      *parts: names of nested folders, outermost first.

    Raises:
      OSError: it cannot be created.
    """
    path = pathlib.Path(
        os.environ.get("JAXCNN_CACHE_DIR")
        or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "jaxcnn")
    ).expanduser()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for part in parts:  # `parents=True` would give those in between the default mode
        path = path / part
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file; if the process is killed or the write fails, the old file stays whole.

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
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
