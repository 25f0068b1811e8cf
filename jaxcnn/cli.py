"""What the scripts share: one-line errors, Ctrl-C, closed pipes, arguments given as text."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import tyro

from jaxcnn.errors import RunError, UserError


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an expected failure into one line on stderr; bugs keep their traceback.

    Ctrl-C ends the process at once with status 130 and leaves temporary folders behind. A
    KeyboardInterrupt raised in the middle of an import or a callback would print a traceback or be
    lost.

    Raises:
      SystemExit: 2 for a `UserError`, 1 for an `OSError` or a `RunError`; 128 plus the number of
        the signal that stopped a run.
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


def text_argument(
    kind: Any, from_text: Callable[[str], Any], to_text: Callable[[Any], str], metavar: str
) -> Any:
    """Return `kind` annotated so that tyro reads it from the command line, one word each.

    Args:
      kind: type of the value.
      from_text: parser of a word; raises UserError for an invalid one.
      to_text: inverse of the parser.
      metavar: form of a word, for the help.
    """

    def parse(arguments: list[str]) -> Any:
        with one_line_errors():  # tyro would take a UserError for its own, and say less
            return from_text(arguments[0])

    return Annotated[
        kind,
        tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=parse,
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: [to_text(value)],
        ),
    ]
