"""JAX's compilation cache: its folder, and entries that cannot be read or written."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxcnn.files import cache_dir

JAX_WARNING = re.compile(
    r"Error (reading|writing) persistent compilation cache entry for '(\w+)': (.*)"
)

_log = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keep compiled programs, unless the user's own settings of JAX already name a directory.

    An entry that cannot be read is removed, so that the program is compiled once more and not at
    each start. JAX itself only warns.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError):  # a read-only home: compile each time
        folder = cache_dir("xla")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        warnings.showwarning = functools.partial(_show, warnings.showwarning, folder)


def _show(show: Callable[..., None], folder: Path, message: Any, *args: Any, **kwargs: Any) -> None:
    if not (match := JAX_WARNING.match(str(message))):
        show(message, *args, **kwargs)
        return
    action, program, reason = match.groups()
    if action == "reading":
        for entry in folder.glob(f"{program}-*"):
            entry.unlink(missing_ok=True)
        _log.warning("a damaged entry of %s is removed, and %s compiled again", folder, program)
    else:
        without_entry, _, _ = reason.partition(": '")
        _log_once(f"cannot write {folder}: {without_entry}; programs are compiled at each start")


@functools.cache
def _log_once(message: str) -> None:
    _log.warning("%s", message)
