"""The two ways to fail, and how they are told to a person."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


class UserError(ValueError):
    """The request is at fault; the message says what was given, what was expected, what to do."""

    exit_code = 2


class RunError(RuntimeError):
    """The request was fine and the run failed; the message says where, and what was kept."""

    exit_code = 1
    everywhere = False  # whether all processes of the run fail so, at the same step


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an expected failure into one line on stderr and an exit status; bugs keep a traceback.

    Raises:
      SystemExit: 2 for a `UserError`, 1 for an `OSError` or a `RunError`, unless a signal stopped
        the run, which is 128 and its number. Ctrl-C ends the process with 130, at once, and
        what it has in temporary folders stays: raised in the middle of an import or a callback,
        KeyboardInterrupt is a traceback or lost.
    """

    def end(*_: object) -> None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # shows the cursor, which a progress bar hides
        os.write(2, b"interrupted\n")
        os._exit(130)

    before = None  # the handler; only the main thread may set one, and what is ignored stays so
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        before = signal.signal(signal.SIGINT, end)
    try:
        yield
        sys.stdout.flush()  # here, where a reader that has gone is no traceback
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:  # who read the output, as head does, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(RunError.exit_code) from None
    except OSError as error:  # a full disk, a folder that may not be written: it names the file
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(RunError.exit_code) from None
    except KeyboardInterrupt:  # raised under another handler; `processes` raises it again
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def flag(field: str) -> str:
    """A config's field as the command line has it."""
    return f"--{field.replace('_', '-')}"


def lookup(
    kind: str, name: str, table: Mapping[str, Value], *, others: Sequence[str] = ()
) -> Value:
    """`table[name]`, or an error that offers the nearest names, and all.

    Args:
      kind: of what ("preset", "model", ...).
      name: as it was given.
      table: the names there are.
      others: what can be asked for beside them, for the message.

    Raises:
      UserError: there is no such name.
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=3)
    hint = f"did you mean {' or '.join(close)}? There" if close else "there"
    raise UserError(f"no {kind} is called {name!r}; {hint} are {', '.join([*table, *others])}")
