"""Return freed heap memory to the OS (glibc `malloc_trim`)."""

import contextlib
import ctypes


def trim() -> None:
    """Return freed memory that glibc's malloc keeps; do nothing elsewhere.

    malloc keeps about 500 MiB after AlexNet's step is compiled, and some for each thread that
    decodes images.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
