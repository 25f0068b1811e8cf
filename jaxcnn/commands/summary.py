"""Print a network layer by layer."""

import shutil
from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.errors import UserError, lookup

MOST_CLASSES = 1_000_000
MOST_COLUMNS = 100


def summary(
    model: Annotated[str | None, tyro.conf.Positional, placeholder("MODEL")] = None,
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    num_classes: Annotated[int | None, placeholder("N")] = None,
    figure: Annotated[Path | None, placeholder("FILE")] = None,
    tpu: bool = False,
) -> None:
    """Print a network layer by layer: sizes, parameters, multiply-adds, receptive fields.

    Args:
        model: network in jaxcnn.models.MODELS, such as lenet5-1998, or one with other fields, such
            as lenet5:pool=max.
        pretrained: name of weights that the package ships, instead of a network.
        num_classes: width of the output; by default the network's own.
        figure: PNG file to draw the architecture into.
        tpu: print the share of useful work in a TPU's matrix units.
    """
    if num_classes is not None and not 1 <= num_classes <= MOST_CLASSES:
        raise UserError(f"`num_classes` is {num_classes}; expected 1 to {MOST_CLASSES:,}")
    if figure is not None:
        figure = output_file("figure", figure)
    if (model is None) == (pretrained is None):
        raise UserError("expected either the name of a network or --pretrained NAME")
    from rich.console import Console  # late, as the imports below, which import jax

    from jaxcnn.distributed.processes import check_devices
    from jaxcnn.models.variants import constructor, image_shape
    from jaxcnn.summary.figure import save_architecture
    from jaxcnn.summary.published import PUBLISHED
    from jaxcnn.summary.summarize import summarize
    from jaxcnn.summary.table import print_summary

    check_devices()
    if pretrained:
        from jaxcnn.interop.pretrained import cards

        model = lookup("set of pretrained weights", pretrained, cards())["model"]
    assert model is not None
    make = constructor(model)
    network = make() if num_classes is None else make(num_classes=num_classes)
    try:
        summary = summarize(network, image_shape(model))
    except ValueError as error:  # for example a model whose number of classes is fixed
        raise UserError(str(error)) from error
    # Published figures are for the number of classes of their source.
    published = None if num_classes else PUBLISHED.get(model)
    width = min(MOST_COLUMNS, shutil.get_terminal_size((MOST_COLUMNS, 0)).columns)
    print_summary(model, summary, published, Console(highlight=False, width=width), tpu=tpu)
    if figure:
        save_architecture(model, summary, figure)
        print(f"Written: {figure}")


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(summary)
