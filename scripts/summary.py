"""Print a network layer by layer: python scripts/summary.py MODEL."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.cli import one_line_errors
from jaxcnn.errors import UserError, lookup


def main(
    model: Annotated[str, tyro.conf.Positional],
    num_classes: int | None = None,
    figure: Path | None = None,
) -> None:
    """Print a network layer by layer: sizes, parameters, multiply-adds, receptive fields.

    Args:
        model: one of jaxcnn.models.MODELS, as lenet5-1998 or alexnet-2012.
        num_classes: width of the output; by default the model's own.
        figure: where to draw the architecture, a PNG file.
    """
    if num_classes is not None and num_classes < 1:
        raise UserError(f"--num-classes is {num_classes}: it must be at least 1")
    if figure and not figure.parent.is_dir():
        raise UserError(f"there is no folder {figure.parent} to write the figure into")
    from rich.console import Console  # after the parsing, as what takes jax along

    from jaxcnn.models import IMAGE_SHAPES, MODELS
    from jaxcnn.summary.figure import save_architecture
    from jaxcnn.summary.published import PUBLISHED
    from jaxcnn.summary.summarize import summarize
    from jaxcnn.summary.table import print_summary

    constructor = lookup("model", model, MODELS)
    network = constructor() if num_classes is None else constructor(num_classes=num_classes)
    try:
        summary = summarize(network, IMAGE_SHAPES[model])
    except ValueError as error:  # as of a model that takes no other number of classes
        raise UserError(str(error)) from error
    # Published figures are for the number of classes of their source.
    published = None if num_classes else PUBLISHED.get(model)
    print_summary(model, summary, published, Console(highlight=False, width=100))
    if figure:
        save_architecture(model, summary, figure)
        print(f"drawn: {figure}")


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
