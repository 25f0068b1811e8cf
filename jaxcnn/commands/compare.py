"""Compare runs."""

from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.commands.runs import NO_FOLDER, given_folders


def compare(
    runs: Annotated[tuple[str, ...], tyro.conf.Positional, placeholder("[RUN ...]")] = (),
    figure: Annotated[Path | None, placeholder("FILE")] = None,
) -> None:
    """List runs, and sum up those that differ in nothing but the seed by mean and deviation.

    Args:
        runs: folders of runs, or folders that contain such folders; by default runs/.
        figure: PNG file to write: training loss and test error of every run over its epochs.
    """
    if figure is not None:
        figure = output_file("figure", figure)
    if folders := given_folders(runs):
        from jaxcnn.evaluation.compare import compare_runs  # late: rich takes a tenth of a second

        compare_runs(folders, figure=figure)
    else:
        print(NO_FOLDER)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(compare)
