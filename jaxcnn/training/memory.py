"""Memory that was freed, and that the C library keeps for itself."""

import contextlib
import ctypes


def trim() -> None:
    """Gives back to the system what glibc's malloc keeps of freed memory; elsewhere does nothing.

    Of what compiling AlexNet's step took, it keeps some 500 MiB; and each thread that decodes
    images leaves some behind.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
