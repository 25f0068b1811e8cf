"""The two ways to fail, and how they are told to a person."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")


class UserError(ValueError):
    """The request is at fault; the message says what was given, what was expected, what to do."""

    exit_code = 2


class RunError(RuntimeError):
    """The request was fine and the run failed; the message says where, and what was kept."""

    exit_code = 1


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
