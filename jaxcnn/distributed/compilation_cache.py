"""The cache of compiled programs on disk."""

from __future__ import annotations

import contextlib

import jax

from jaxcnn.files import cache_dir


def use_compilation_cache() -> None:
    """Keep compiled programs, unless the user's own settings of JAX already name a directory."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError):  # a read-only home: compile each time
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
