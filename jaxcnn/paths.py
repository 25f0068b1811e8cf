"""Paths as users write them: `~` is expanded, and URLs are refused."""

from __future__ import annotations

import os
import re
from pathlib import Path

from jaxcnn.errors import UserError


def local_path(path: str | os.PathLike[str], label: str) -> Path:
    """Return a path of the local file system, with a leading `~` expanded.

    Args:
      path: path as the user wrote it.
      label: argument or field for the message, such as "`workdir`".

    Raises:
      UserError: the path is empty or a URL, or the home folder that it names is unknown.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"{label} is {path!r:.60}; expected a path")
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UserError(f"{label} is {text!r}; expected a path")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):  # pathlib turns gs://a into gs:/a
        raise UserError(
            f"{label} is {text!r}, a URL; expected a path of the local file system; mount a "
            "bucket as a folder first, for example with gcsfuse"
        )
    expanded = os.path.expanduser(text)
    if text.startswith("~") and expanded == text:
        raise UserError(
            f"{label} is {text!r}, and this home folder is unknown; write the whole path"
        )
    return Path(expanded)
