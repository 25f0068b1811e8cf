"""What the commands share: one-line errors, signals, closed pipes, arguments and output files."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import tyro

from jaxcnn.errors import RunError, UserError, exhausted_memory, one_line
from jaxcnn.paths import local_path


def run_command(command: Callable[..., None]) -> None:
    """Call a function with the arguments of the process; its docstring is the help.

    Raises:
      SystemExit: see `one_line_errors`.
    """
    # tyro keeps some line breaks of an argument's description; without any, it fills the terminal.
    command.__doc__ = re.sub(r"\n {8,}", " ", inspect.cleandoc(command.__doc__ or ""))
    with one_line_errors(inspect.signature(command).parameters):
        tyro.cli(command, prog=sys.argv[0])


@contextlib.contextmanager
def one_line_errors(arguments: Collection[str] | None = None) -> Iterator[None]:
    """Turn an expected failure into one line on stderr; bugs keep their traceback.

    Errors name fields and arguments in backquotes; `errors.one_line` turns them into flags. A
    closed standard output counts as /dev/null, and characters that its encoding lacks are printed
    as `?`.

    Ctrl-C, SIGTERM and SIGHUP end the process at once with one line and leave temporary folders
    behind. A KeyboardInterrupt raised in the middle of an import or a callback would print a
    traceback or be lost.

    Args:
      arguments: names that are flags of the command; by default all names are.

    Raises:
      SystemExit: 2 for a `UserError`; 1 for an `OSError`, a `RunError` or exhausted memory; 128
        plus the number of the signal that stopped a run.
    """
    _prepare_streams()
    # Only the main thread may set a handler; a signal that is ignored stays ignored.
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _end)
    try:
        yield
        sys.stdout.flush()  # inside the block, because the reader may have closed the pipe
    except (UserError, RunError) as error:
        print(f"error: {one_line(error, arguments)}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if (cause := exhausted_memory(error)) is None:
            raise
        print(
            f"error: out of memory: {cause}; use a smaller batch or fewer images", file=sys.stderr
        )
        raise SystemExit(RunError.exit_code) from None
    except BrokenPipeError:  # the reader closed the pipe (e.g. `| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(RunError.exit_code) from None
    except OSError as error:  # for example a full disk; the message names the file
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(RunError.exit_code) from None
    except KeyboardInterrupt:  # under another handler; `processes` raises it again
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    name = signal.Signals(number).name
    message = "interrupted" if number == signal.SIGINT else f"stopped by {name}"
    with contextlib.suppress(OSError):  # the terminal may have hung up
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # shows the cursor, which a progress bar hides
        os.write(2, f"{message}\n".encode())
    os._exit(128 + number)


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # names of files need not be UTF-8


def placeholder(text: str) -> Any:
    """Return an annotation for an argument whose default is described in words in its help.

    Args:
      text: form of the value in the help, such as "DIR".
    """
    return tyro.conf.arg(metavar=text, help_behavior_hint="")


def output_file(name: str, path: Path) -> Path:
    """Return the path of a file to write, checked before the work whose result it receives.

    Args:
      name: name of the argument, for the message.
      path: path of the file.

    Raises:
      UserError: the path is empty, a URL or a folder, or its folder does not exist.
    """
    path = local_path(path, f"`{name}`")
    if path.is_dir():  # as is the empty path
        raise UserError(f"`{name}` is {str(path)!r}, a folder; name a file to write")
    if not path.parent.is_dir():
        raise UserError(f"`{name}` is {str(path)!r}; create the folder {str(path.parent)!r} first")
    return path


def text_argument(
    kind: Any, from_text: Callable[[str], Any], to_text: Callable[[Any], str], metavar: str
) -> Any:
    """Return an annotation with which tyro reads a type from the command line, one word each.

    Args:
      kind: type of the value.
      from_text: parser of a word; raises UserError for an invalid one.
      to_text: inverse of the parser.
      metavar: form of a word, for the help.
    """

    def parse(arguments: list[str]) -> Any:
        with one_line_errors():  # tyro replaces the message of a ValueError by a shorter one
            return from_text(arguments[0])

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [to_text(value)],
    )
