"""The runs below a folder: how far each has come, read from its files without its data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.errors import RunError, UserError
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.folder import Result
from jaxcnn.workdir.lock import is_locked
from jaxcnn.workdir.metadata import read_metadata
from jaxcnn.workdir.metrics_log import Line, latest


class Run(NamedTuple):
    """A run as its folder records it.

    Attributes:
      path: folder of the run.
      state: "running" while a process trains in it, "stopped" if none does and it is not finished,
        "damaged" if a file cannot be read.
      config: its config; None if it is missing or cannot be read.
      result: its result, if it is finished.
      last: latest value of each field of its log.
      step: steps done, as far as the log and the checkpoints tell.
      total_steps: steps of the whole run; None if the log is empty.
      seconds: seconds spent until the result or the latest checkpoint; None before that.
      problem: description of the damage.
    """

    path: Path
    state: Literal["finished", "running", "stopped", "damaged"]
    config: TrainConfig | None
    result: Result | None
    last: Line
    step: int
    total_steps: int | None
    seconds: float | None
    problem: str = ""

    def accuracy(self) -> float | None:
        """Return the test accuracy; before the end of a run, the latest of `measured_on`."""
        if self.result:
            return self.result["test_accuracy"]
        return self.last.get("val_accuracy", self.last.get("test_accuracy"))

    def train_eval_accuracy(self) -> float | None:
        """Return the accuracy on the training set as evaluated with `accuracy`, if it was."""
        return (self.result or self.last).get("train_eval_accuracy")

    def measured_on(self) -> Literal["test", "validation"]:
        """Return the split on which `accuracy` was measured."""
        return "validation" if not self.result and "val_accuracy" in self.last else "test"


def list_runs(paths: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Return the runs in the given folders and below them, sorted by name within each.

    Links to runs are followed, other links are not; each run is listed once. Nothing that lies in
    the folders raises an error.

    Raises:
      UserError: one of the given folders does not exist or contains no run.
    """
    folders: dict[str, Path] = {}  # by real path: in order, each once
    for path in map(Path, paths):
        found = [path] if _is_run(path) else sorted(_runs_below(path), key=_by_number)
        if not found:
            state = "contains no run" if path.is_dir() else "is no folder"
            state = state if os.path.lexists(path) else "does not exist"
            raise UserError(
                f"{path} {state}; expected the folder of a run, or a folder of such folders"
            )
        for folder in found:
            real = os.path.realpath(folder)
            if real not in folders or not folder.is_symlink():
                folders[real] = folder
    return [_read(folder) for folder in folders.values()]


def _runs_below(path: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(path):  # which skips folders that cannot be listed
        runs = [name for name in names if _is_run(Path(place, name))]
        yield from (Path(place, name) for name in runs)
        names[:] = [name for name in names if name not in runs and not name.startswith(".")]


def _is_run(path: Path) -> bool:
    checkpoints = path / "checkpoints"
    try:
        return (path / "config.json").is_file() or is_locked(path) or checkpoints.is_dir()
    except OSError:  # no permission to look into it
        return False


def _by_number(path: Path) -> list[str | int]:
    """Return a sort key by which seed2 precedes seed10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"(\d+)", str(path)))]


def _read(path: Path) -> Run:
    config = result = None
    problem = ""
    try:
        config = configs.with_whole_paths(workdirs.read_config(path))
        result = workdirs.read_result(path, config.epochs)
    except UserError as error:
        problem = str(error)
    last: Line = latest(path)
    step, seconds = _newest_checkpoint(path)
    step, total = max(step, last.get("step", 0)), None
    if config and last.get("epoch"):
        total = config.epochs * round(last["step"] / last["epoch"])
    if result:
        step, seconds = result["steps"], result["total_seconds"]
        total = total or step
    state: Literal["finished", "running", "stopped", "damaged"]
    state = "running" if is_locked(path) else "finished" if result else "stopped"
    if problem and not (state == "running" and not (path / "config.json").exists()):
        state = "damaged"
    return Run(path, state, config, result, last, step, total, seconds, problem)


def _newest_checkpoint(path: Path) -> tuple[int, float | None]:
    """Return the step of the newest checkpoint, and the seconds until then; 0 and None if none."""
    folder = path / "checkpoints"
    try:
        steps = sorted(int(name) for name in os.listdir(folder) if name.isdecimal())
        metadata = read_metadata(folder / str(steps[-1]), None)
    except (OSError, IndexError):
        return 0, None
    except (RunError, UserError):  # it is damaged, or of a newer version
        return steps[-1], None
    return steps[-1], metadata["progress"]["total_seconds"]
