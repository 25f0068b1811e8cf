"""The two kinds of failure, and look-ups by name with suggestions."""

from __future__ import annotations

import collections
import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


class UserError(ValueError):
    """The request is wrong: X is Y; expected Z; do W.

    The message names a config field or an argument in backquotes, such as `batch_size` or
    `optimizer.mu`; the command line prints it as a flag.
    """

    exit_code = 2


class RunError(RuntimeError):
    """The request is right, but the run failed; the message says where, and what is kept."""

    exit_code = 1


def exhausted_memory(error: BaseException) -> str | None:
    """Return the cause if an error of Python or XLA says that memory is exhausted, else None."""
    first = str(error).partition("\n")[0].rstrip(".")
    said = re.search("Out of memory.*", first)  # jax 0.7.2 calls it INTERNAL if it surfaces late
    if said or "RESOURCE_EXHAUSTED" in first:
        return said[0] if said else first
    return first or "the host has none left" if isinstance(error, MemoryError) else None


def flag(field: str) -> str:
    """Return the command-line flag of a config field."""
    return f"--{field.replace('_', '-')}"


def one_line(error: Exception, arguments: Collection[str] | None = None) -> str:
    """Return the message of an error as one line; names in backquotes become flags.

    Args:
      error: the error.
      arguments: names of the command's arguments, if other names are fields that no flag sets.
    """

    def shown(name: re.Match[str]) -> str:
        return flag(name[1]) if arguments is None or name[1] in arguments else name[1]

    message = re.sub("`([a-z][a-z0-9_.]*)`", shown, str(error))
    return re.sub(r"\s*\n\s*", " ", message.strip())


def lookup(
    kind: str, name: str, table: Mapping[str, Value], *, others: Sequence[str] = ()
) -> Value:
    """Return `table[name]`, or raise an error with the nearest names and all names.

    Args:
      kind: kind of the name, such as "preset" or "model", for the message.
      name: name to look up.
      table: names and values; names with a common part before a slash are listed as one.
      others: further valid forms, for the message.

    Raises:
      UserError: the table has no such name.
    """
    if name in table:
        return table[name]
    close = difflib.get_close_matches(name, table, n=3)
    hint = f"did you mean {' or '.join(close)}? There" if close else "there"
    families = collections.Counter(name.partition("/")[0] for name in table)
    shown = dict.fromkeys(
        name if families[family := name.partition("/")[0]] <= 3 else f"{family}/..."
        for name in table
    )
    raise UserError(f"no {kind} is called {name!r}; {hint} are {', '.join([*shown, *others])}")
