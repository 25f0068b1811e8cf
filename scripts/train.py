"""Train a network: python scripts/train.py [PRESET] [--field value ...]."""

import sys

import tyro

from jaxcnn.errors import lookup, one_line_errors
from jaxcnn.presets import PRESETS, custom_unless_preset

DEFAULT_PRESET = "lenet5-mnist5k"

DESCRIPTION = """\
Train a network, evaluate it and keep everything in one folder.

usage: python scripts/train.py [PRESET] [--field value ...]

Without a preset it is lenet5-mnist5k, which needs no download. A run that was interrupted goes on
when the same command is started again.

Presets:

"""


def main() -> None:
    """Parse, call, print."""
    arguments = sys.argv[1:]
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments.pop(0) if named else DEFAULT_PRESET
    cards = "\n\n".join(f"{name}\n{config.card}" for name, config in PRESETS.items())
    with one_line_errors():
        if arguments == ["--list"]:
            print(cards)
            return
        preset = lookup("preset", name, PRESETS)
        config = tyro.cli(
            type(preset),
            prog=f"train.py {name}",
            description=DESCRIPTION + cards,
            default=preset,
            args=arguments,
        )
        from jaxcnn.train import train_and_evaluate  # after the parsing: it takes jax along

        train_and_evaluate(custom_unless_preset(config))


if __name__ == "__main__":
    main()
