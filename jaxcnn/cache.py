"""Where jaxcnn keeps what it can compute again: one directory, private to the user."""

from __future__ import annotations

import os
import pathlib


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
