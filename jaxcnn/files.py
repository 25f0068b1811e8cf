"""Files that are whole or absent, and the user's cache directory."""

from __future__ import annotations

import contextlib
import os
import pathlib
from pathlib import Path


def cache_dir(*parts: str) -> pathlib.Path:
    """The user's cache directory, or a folder inside it; created with mode 0700.

    `JAXCNN_CACHE_DIR` names it, else it is `jaxcnn` in `XDG_CACHE_HOME`, else in `~/.cache`.

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
    """Replaces a file; a process killed meanwhile, or a failure, leaves the old one whole.

    Raises:
      OSError: it cannot be written.
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
