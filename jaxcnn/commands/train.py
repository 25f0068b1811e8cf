"""Train a network."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxcnn.cli import one_line_errors, text_argument
from jaxcnn.commands.usage import help_page
from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import Transform, from_text, to_text
from jaxcnn.errors import UserError, lookup
from jaxcnn.presets import PRESETS

DEFAULT_PRESET = "lenet5-mnist5k"

TransformArgument = Annotated[
    Transform, text_argument(Transform, from_text, to_text, metavar="NAME[:FIELD=VALUE,...]")
]


@dataclasses.dataclass(frozen=True)
class Arguments(TrainConfig):
    """Train a network, evaluate it, and keep the run in one folder."""

    preset: tyro.conf.Suppress[str] = "custom"
    continued_from: tyro.conf.Suppress[tuple[int, ...]] = ()
    transforms: tuple[TransformArgument, ...] = ()
    """resize, crop, center-crop, flip, affine, deslant, invert, pca-color, cutout. Applied in the
    order given, before the pixels are normalized."""
    seeds: tuple[int, ...] = ()
    """Train once with each of these seeds, and print mean and spread. On a CPU the seeds share the
    cores."""
    continue_run: Annotated[bool, tyro.conf.arg(name="continue")] = False
    """Make a run longer, to `--epochs`. The schedule must be constant or steps. Without --workdir,
    the run is the only one in runs/ that differs in `--epochs` alone."""


def take_preset(arguments: list[str]) -> str:
    """Remove and return the name of a preset: the first argument, or one after all of a flag."""
    if arguments and not arguments[0].startswith("-"):
        return arguments.pop(0)
    for place in range(1, len(arguments)):
        if arguments[place] in PRESETS and not arguments[place - 1].startswith("-"):
            return arguments.pop(place)
    return DEFAULT_PRESET


def parse_config(program: str, preset: str, arguments: Sequence[str]) -> TrainConfig:
    """Return the config of a preset with flags of this command.

    Raises:
      UserError: there is no such preset, or a flag does not belong to a config.
    """
    config, seeds, continues = _parse(program, preset, arguments)
    if seeds or continues:
        raise UserError(f"{' '.join(arguments)!r} has --seeds or --continue; remove it")
    return config


def _parse(
    program: str, name: str, arguments: Sequence[str]
) -> tuple[TrainConfig, tuple[int, ...], bool]:
    """Return the config, the seeds and whether a run is made longer."""
    preset = lookup("preset", name, PRESETS)
    parsed = tyro.cli(
        Arguments,
        prog=f"{program} {name}",
        default=Arguments(**vars(preset.config)),
        args=arguments,
    )
    fields = dict(vars(parsed))
    seeds, continues = fields.pop("seeds"), fields.pop("continue_run")
    return preset.name(TrainConfig(**fields)), seeds, continues


def main() -> None:
    """Run the command with the arguments of the process."""
    program, *arguments = sys.argv
    name = take_preset(arguments)
    with one_line_errors():
        lookup("preset", name, PRESETS)
        if "--list" in arguments:
            print("\n\n".join(f"{name}\n{preset.card}" for name, preset in PRESETS.items()))
            return
        if {"-h", "--help"} & {*arguments}:
            print(help_page(program, name))
            return
        arguments = ["--help" if argument == "--help-all" else argument for argument in arguments]
        config, seeds, continues = _parse(program, name, arguments)
        if "--seeds" in arguments and not seeds:
            raise UserError("`seeds` is empty; expected one seed or several")
        # Late, because these import jax.
        if seeds:
            from jaxcnn.evaluation.compare import compare_runs
            from jaxcnn.evaluation.seeds import train_seeds

            compare_runs(train_seeds(config, seeds, continues=continues))
        else:
            from jaxcnn.distributed.processes import has_others
            from jaxcnn.interop.initialize import load_initial_params
            from jaxcnn.training.cores import use_cores
            from jaxcnn.training.train import train_and_evaluate
            from jaxcnn.workdir.folder import continued

            config = continued(config) if continues else config
            if config.model_axis == 1 and not has_others(config.multihost):
                use_cores(config.model, config.batch_size)
            train_and_evaluate(config, initial_params=load_initial_params(config))
