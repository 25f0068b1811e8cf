"""The help page of `train`: presets and flags, a line each where they fit.

The page is read from the config: the first sentence of a field's docstring, its type and its value.
"""

from __future__ import annotations

import ast
import inspect
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from jaxcnn.config import OnlyWith, OptimizerConfig, TrainConfig, field_types
from jaxcnn.data import transforms
from jaxcnn.errors import flag
from jaxcnn.presets import PRESETS

HEADER = """\
usage: {program} [PRESET] [--FLAG VALUE ...]

Train a network, evaluate it, and keep the run in one folder. Start an interrupted run again with
the same command: it continues from its last checkpoint."""

# Common fields by group; "Rarely needed" has all others.
GROUPS = {
    "Run": "epochs batch_size seed workdir",
    "Data": "dataset data_dir train_examples transforms pixel_mean pixel_std",
    "Network": "model dtype",
    "Optimizer": "optimizer.name optimizer.learning_rate optimizer.schedule optimizer.warmup_epochs"
    " optimizer.rate_steps optimizer.momentum optimizer.nesterov optimizer.weight_decay"
    " optimizer.accumulate label_smoothing class_weights ema_decay",
    "Fine-tuning": "init_from freeze",
    "Evaluation": "val_fraction patience eval_training eval_views eval_every_epochs"
    " eval_batch_size",
    "Devices": "model_axis multihost coordinator num_processes process_id",
}

# Stand for the value of a field that has none.
PLACEHOLDERS = {
    "transforms": "NAME[:FIELD=VALUE,...] ...",
    "optimizer.rate_steps": "EPOCH FRACTION ...",
    "optimizer.layer_decays": "LAYER DECAY ...",
    "optimizer.layer_rates": "LAYER FACTOR ...",
    "init_from": "RUN|FILE|NAME",
    "init_only": "LAYER ...",
    "freeze": "LAYER ...",
    "workdir": "DIR",
    "data_dir": "DIR",
    "manual_dir": "DIR",
    "coordinator": "HOST:PORT",
}

WIDE = 72  # columns from which on a flag and its description share a line


def help_page(program: str, preset: str, columns: int | None = None) -> str:
    """Return the help page, with the values of a preset.

    Args:
      program: name of the program, as the user started it.
      preset: name of the preset.
      columns: width of the page; by default that of the terminal, at most 100.
    """
    columns = columns or min(shutil.get_terminal_size().columns, 100)
    lines = [textwrap.fill(part, columns) for part in HEADER.format(program=program).split("\n\n")]
    lines = ["\n\n".join(lines), "", "Presets (the first is the default):"]
    for name, entry in PRESETS.items():
        lines += _entry(name, entry.card.splitlines()[0], columns)
    lines += _entry("--list", "print the card of every preset", columns)
    lines += _entry("--seeds N ...", "train with each seed; print mean and spread", columns)
    lines += _entry("--continue", "make a run longer, to --epochs", columns)
    lines += _entry("PRESET --help", "this page with the values of another preset", columns)
    lines += _entry("--help-all", "print every flag with its whole description", columns)
    fields = dict(_fields(PRESETS[preset].config))
    groups = {title: names.split() for title, names in GROUPS.items()}
    common = {name for names in groups.values() for name in names}
    groups["Rarely needed"] = [name for name in fields if name not in common]
    lines += ["", f"Flags, with the values of {preset}:"]
    for title, names in groups.items():
        lines += ["", f"{title}:"]
        for name in names:
            lines += _entry(*fields[name], columns)
    return "\n".join(lines)


def _entry(left: str, right: str, columns: int) -> list[str]:
    """Return the lines of an entry: the right side on the same line if there is room."""
    column = 34 if columns >= WIDE else 6
    options: Any = {"width": columns, "break_on_hyphens": False, "break_long_words": False}
    if len(left) + 3 <= column:
        return textwrap.wrap(
            f"  {left}".ljust(column) + right, subsequent_indent=column * " ", **options
        )
    return [
        *textwrap.wrap(left, initial_indent="  ", subsequent_indent="      ", **options),
        *textwrap.wrap(
            right, initial_indent=column * " ", subsequent_indent=column * " ", **options
        ),
    ]


def _fields(config: TrainConfig) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (dotted name, (flag with its value, description)) of each field that has a flag."""
    for prefix, part in (("", config), ("optimizer.", config.optimizer)):
        descriptions = _first_sentences(type(part))
        for name, (kind, *marks) in field_types(type(part)).items():
            if name in ("preset", "optimizer", "continued_from"):
                continue
            field, value, description = prefix + name, getattr(part, name), descriptions[name]
            if get_origin(kind) is Literal:
                description += f": {', '.join(map(str, get_args(kind)))}"
            for mark in marks:
                if isinstance(mark, OnlyWith):
                    description += f" ({', '.join(mark.rules)})"
            if value is True:
                description = f"Turn off: {description}"
                field_flag = flag(f"{prefix}no_{name}")
            else:
                field_flag = flag(field)
            yield field, (f"{field_flag} {_value(field, value)}".rstrip(), description)


def _value(field: str, value: Any) -> str:
    if isinstance(value, bool):
        return ""
    if value is None or value == ():
        return PLACEHOLDERS.get(field, "N")
    if field == "transforms":
        return " ".join(map(transforms.to_text, value))
    if isinstance(value, tuple):
        return " ".join(_value(field, item) for item in value)
    return str(value)


def _first_sentences(cls: type[TrainConfig] | type[OptimizerConfig]) -> dict[str, str]:
    """Return the first sentence of each field's docstring, from the source of a config class."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            words = " ".join(ast.literal_eval(text.value).split())
            found[ast.unparse(field.target)] = words.partition(". ")[0].rstrip(".")
    return found
