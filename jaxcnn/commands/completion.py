"""Shell completion: a script for bash and zsh with the words of every command."""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import tyro

from jaxcnn.commands.train import Arguments
from jaxcnn.config import OptimizerConfig
from jaxcnn.data.datasets import DATASETS
from jaxcnn.data.transforms import TRANSFORMS
from jaxcnn.errors import UserError, flag
from jaxcnn.interop.pretrained import cards
from jaxcnn.models import MODELS
from jaxcnn.presets import PRESETS
from jaxcnn.studies.catalogue import STUDIES

SHELLS = ("bash", "zsh")

SCRIPT = """\
# Completion of jaxcnn for {shell}: source <(jaxcnn --completion {shell})
{preamble}_jaxcnn() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=
  if [[ $COMP_CWORD == 1 ]]; then
    words="{commands}"
  else
    case "${{COMP_WORDS[1]}} $prev" in
{values}
      *)
        if [[ $cur == -* ]]; then
          case ${{COMP_WORDS[1]}} in
{flags}
          esac
        elif [[ $COMP_CWORD == 2 ]]; then
          case ${{COMP_WORDS[1]}} in
{first}
          esac
        fi;;
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o bashdefault -o default -F _jaxcnn jaxcnn
"""

OTHER_FLAGS = ("--list", "--help", "--help-all")  # of train

# Of a command that has several functions or classes of flags.
FUNCTIONS = {"convert": ("export", "import_"), "study": ("Options", "Comparison")}
NO_FLAGS = ("optimizer", "continued_from")  # fields of train
NAMES = {"continue_run": "continue"}


def script(shell: str, commands: Mapping[str, str]) -> str:
    """Return the script that completes commands, presets, networks, flags and their values.

    Args:
      shell: one of SHELLS.
      commands: names of the commands.

    Raises:
      UserError: the shell is another one.
    """
    if shell not in SHELLS:
        raise UserError(f"the shell is {shell!r}; expected {' or '.join(SHELLS)}")
    flags = {command: dict(_flags(command)) for command in commands}
    first = {"train": [*PRESETS], "summary": [*MODELS], "benchmark": [*MODELS]}
    first |= {"convert": ["export", "import"], "study": [*STUDIES, "compare"]}
    values = {
        f"{command} {name}": words
        for command, names in flags.items()
        for name, words in names.items()
        if words
    }
    return SCRIPT.format(
        shell=shell,
        preamble="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        commands=" ".join(commands),
        values=_cases(values, 6),
        flags=_cases(flags, 12),
        first=_cases(first, 12),
    )


def _cases(words: Mapping[str, Any], indent: int) -> str:
    return "\n".join(
        f'{" " * indent}"{name}") words="{" ".join(map(str, found))}";;'
        for name, found in words.items()
    )


def _flags(command: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each flag of a command with the words that may follow it, if they are known."""
    yield from ((name, []) for name in (OTHER_FLAGS if command == "train" else ("--help",)))
    known: dict[str, Iterable[str]] = {
        "model": MODELS,
        "pretrained": cards(),
        "dataset": [name for name in DATASETS if "corrupted" not in name],
        "transforms": TRANSFORMS,
        "preset": PRESETS,
    }
    for name, hint in _arguments(command):
        words: Iterable[str] = known.get(name, _choices(hint))
        yield flag(name), list(words)


def _arguments(command: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and the type of each argument that is a flag."""
    if command == "train":
        functions: list[tuple[str, Any]] = [("", Arguments), ("optimizer.", OptimizerConfig)]
    else:
        module = importlib.import_module(f"jaxcnn.commands.{command}")
        functions = [("", getattr(module, name)) for name in FUNCTIONS.get(command, [command])]
    for prefix, function in functions:
        hints = typing.get_type_hints(function, include_extras=True)
        for name, parameter in inspect.signature(function).parameters.items():
            hint = hints[name]
            is_flag = not {tyro.conf.Positional, tyro.conf.Suppress} & {*get_args(hint)[1:]}
            if is_flag and name not in NO_FLAGS:
                name = NAMES.get(name, f"no_{name}" if parameter.default is True else name)
                yield prefix + name, hint


def _choices(hint: Any) -> list[str]:
    """Return the values of a Literal anywhere in a type."""
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if get_origin(hint) in (Annotated, Union, types.UnionType):
        return [word for part in get_args(hint) for word in _choices(part)]
    return []
