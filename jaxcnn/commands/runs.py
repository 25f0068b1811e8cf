"""List runs."""

import json as json_module
from pathlib import Path
from typing import Annotated

import tyro

from jaxcnn.cli import placeholder, run_command
from jaxcnn.paths import local_path

DEFAULT_FOLDER = Path("runs")
NO_FOLDER = "There is no folder runs/ here yet; jaxcnn train makes it."


def runs(
    folders: Annotated[tuple[str, ...], tyro.conf.Positional, placeholder("[FOLDER ...]")] = (),
    json: bool = False,
) -> None:
    """List runs: what differs from their preset, accuracy, steps done, time and state.

    A run is finished, running (a process trains in its folder), stopped (the same command continues
    it) or damaged.

    Args:
        folders: folders of runs, or folders that contain such folders; by default runs/.
        json: print a JSON list instead of a table.
    """
    # Late: rich takes a tenth of a second.
    from jaxcnn.evaluation.runs import print_runs, to_record
    from jaxcnn.workdir.listing import list_runs

    if json:
        found = list_runs(given_folders(folders))
        print(json_module.dumps([to_record(run) for run in found], indent=2))
    elif given := given_folders(folders):
        print_runs(list_runs(given))
    else:
        print(NO_FOLDER)


def given_folders(folders: tuple[str, ...]) -> list[Path]:
    """Return the folders on the command line, or runs/ if it exists.

    Raises:
      UserError: a folder is the empty text or a URL.
    """
    if not folders and not DEFAULT_FOLDER.is_dir():
        return []
    return [local_path(path, "the folder of a run") for path in folders or [str(DEFAULT_FOLDER)]]


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(runs)
