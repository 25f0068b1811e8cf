"""Compare runs."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.cli import output_file, placeholder, run_command


def compare(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = (
        Path("runs"),
    ),
    figure: Annotated[Path | None, placeholder("FILE")] = None,
) -> None:
    """List runs: what differs from their preset, seeds, epochs, accuracies and times.

    Runs that differ in nothing but the seed are summed up by mean and standard deviation.

    Args:
        runs: folders of runs, or folders that contain such folders.
        figure: PNG file to write: training loss and test error of every run over its epochs.
    """
    if figure is not None:
        output_file("figure", figure)
    from jaxcnn.evaluation.compare import compare_runs  # late, because it imports rich and jax

    compare_runs(runs, figure=figure)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(compare)
