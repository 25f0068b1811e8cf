"""The two ways to fail, and how a script tells them to a person."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """The request is at fault; the message says what was given, what was expected, what to do."""

    exit_code = 2


class RunError(RuntimeError):
    """The request was fine and the run failed; the message says where, and what was kept."""

    exit_code = 1


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an expected failure into one line on stderr and an exit status; bugs keep their traceback.

    Raises:
      SystemExit: 2 for a `UserError`, 1 for a `RunError`.
    """
    try:
        yield
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
