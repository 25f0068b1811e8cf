"""The run folder: locking, config and result files."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.distributed import processes
from jaxcnn.errors import UserError


@contextlib.contextmanager
def lock_run_folder(config: TrainConfig) -> Iterator[Path]:
    """Create the run folder and lock it while the context lasts.

    Of several processes, process 0 locks it for all.

    Raises:
      UserError: the folder cannot be written or has a name that Orbax cannot read, another process
        trains in it, or it holds a checkpoint or a result of a run with another config.
    """
    workdir = Path(config.workdir or f"runs/{config.preset}-seed{config.seed}").expanduser()
    if any(character in str(workdir.absolute()) for character in "[]\\"):
        raise UserError(
            f"the run's folder is {workdir.absolute()}, and checkpoints below a path with [, ] or "
            "\\ cannot be read again; choose another --workdir"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write in {workdir}: {error.strerror}; choose another --workdir"
        ) from None
    with lock:
        try:
            # The system frees the lock, whatever becomes of the process.
            if processes.is_process_0():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is training in {workdir}; choose another --workdir"
            ) from None
        if (workdir / "config.json").exists() and _has_come_to_something(workdir):
            _refuse_another_run(config, workdir)
        yield workdir


def read_config(
    workdir: Path, *, data_dir: str | None = None, manual_dir: str | None = None
) -> TrainConfig:
    """Return the config of the run in a folder, with other data directories if given.

    Raises:
      UserError: the folder holds no run, or its config cannot be read.
    """
    path = workdir / "config.json"
    try:
        config = configs.from_json(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{workdir} holds no run: there is no {path}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return dataclasses.replace(
        config,
        data_dir=data_dir or config.data_dir,
        manual_dir=manual_dir or config.manual_dir,
    )


def read_result(workdir: Path) -> dict[str, Any] | None:
    """Return the result of a finished run, or None if the run is not finished."""
    path = workdir / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def _has_come_to_something(workdir: Path) -> bool:
    """Return whether the folder holds a checkpoint, readable or not, or a result."""
    folders = workdir / "checkpoints", workdir / "unreadable"
    return (workdir / "result.json").exists() or any(
        path.name.isdigit() for folder in folders for path in folder.glob("*")
    )


def _refuse_another_run(config: TrainConfig, workdir: Path) -> None:
    differing = configs.differences(config, configs.with_whole_paths(read_config(workdir)))
    if differing:
        fields = ", ".join(
            f"{name} is {theirs!r} there and {ours!r} here"
            for name, (ours, theirs) in differing.items()
        )
        raise UserError(
            f"{workdir} holds a run of another config: {fields}; choose another --workdir"
        )
