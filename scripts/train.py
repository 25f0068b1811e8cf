"""Train a network: python scripts/train.py [PRESET] [--field value ...]."""

import dataclasses
import sys

import tyro

from jaxcnn.cli import one_line_errors, text_argument
from jaxcnn.config import TrainConfig
from jaxcnn.data import transforms
from jaxcnn.errors import lookup
from jaxcnn.presets import PRESETS

DEFAULT_PRESET = "lenet5-mnist5k"

DESCRIPTION = """\
Train a network, evaluate it and keep everything in one folder.

usage: python scripts/train.py [PRESET] [--field value ...]

Without a preset it is lenet5-mnist5k, which needs no download. A run that was interrupted goes on
when the same command is started again.

Presets:

"""


TransformArgument = text_argument(
    transforms.Transform,
    transforms.from_text,
    transforms.to_text,
    metavar="NAME[:FIELD=VALUE,...]",
)


@dataclasses.dataclass(frozen=True)
class Arguments(TrainConfig):
    """A run: what is trained, on what, how long, and where it is kept."""

    preset: tyro.conf.Suppress[str] = "custom"
    transforms: tuple[TransformArgument, ...] = ()
    """What images go through, in this order, before their pixels are normalized: resize, crop,
    flip, affine, pca-color or cutout; a wrong field is answered with those that there are."""


def main() -> None:
    """Parse, call, print."""
    arguments = sys.argv[1:]
    named = bool(arguments) and not arguments[0].startswith("-")
    name = arguments.pop(0) if named else DEFAULT_PRESET
    cards = "\n\n".join(f"{name}\n{preset.card}" for name, preset in PRESETS.items())
    with one_line_errors():
        if arguments == ["--list"]:
            print(cards)
            return
        preset = lookup("preset", name, PRESETS)
        parsed = tyro.cli(
            Arguments,
            prog=f"train.py {name}",
            description=DESCRIPTION + cards,
            default=Arguments(**vars(preset.config)),
            args=arguments,
        )
        from jaxcnn.training.train import (
            train_and_evaluate,  # after the parsing: it takes jax along
        )

        train_and_evaluate(preset.name(TrainConfig(**vars(parsed))))


if __name__ == "__main__":
    main()
