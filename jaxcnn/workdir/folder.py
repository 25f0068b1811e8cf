"""The run folder: locking, config and result files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, TypedDict

from jaxcnn import config as configs
from jaxcnn import records
from jaxcnn.config import COUNT, NOT_NEGATIVE, SEED, TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.paths import local_path
from jaxcnn.presets import PRESETS
from jaxcnn.records import Bound
from jaxcnn.workdir.lock import lock

MAX_NAME = 80  # characters of a default folder's name before its digest and seed


class _Result(TypedDict):
    preset: str
    model: str
    num_parameters: int
    dataset: str
    seed: Annotated[int, SEED]
    epochs: Annotated[int, COUNT]
    steps: Annotated[int, COUNT]
    test_accuracy: Annotated[float, Bound(lambda value: 0 <= value <= 1, "in [0, 1]")]
    test_loss: float
    num_test_examples: Annotated[int, COUNT]
    train_seconds: Annotated[float, NOT_NEGATIVE]
    compile_seconds: Annotated[float, NOT_NEGATIVE]
    examples_per_second: Annotated[float, NOT_NEGATIVE]
    total_seconds: Annotated[float, NOT_NEGATIVE]
    devices: list[str]
    versions: dict[str, str]


class Result(_Result, total=False):
    """Content of result.json; all seconds are sums over the starts of the run.

    `continued_from` is missing in results of earlier versions, `skipped_steps` unless such steps
    are skipped, the evaluation of the training set without `eval_training`, the other fields in
    runs without a validation split. All figures of a run with one are those of `best_step`;
    `stopped_early` says whether `patience` ended it before `epochs`.
    """

    continued_from: list[int]
    skipped_steps: Annotated[int, NOT_NEGATIVE]
    train_eval_accuracy: Annotated[float, Bound(lambda value: 0 <= value <= 1, "in [0, 1]")]
    train_eval_loss: float
    num_train_eval_examples: Annotated[int, COUNT]
    best_step: Annotated[int, COUNT]
    val_accuracy: Annotated[float, Bound(lambda value: 0 <= value <= 1, "in [0, 1]")]
    val_loss: float
    num_val_examples: Annotated[int, COUNT]
    stopped_early: bool


def default_workdir(config: TrainConfig) -> str:
    """Return the run folder of a config that names none.

    Its name is that of the preset, or of network and dataset, then the fields that differ from it,
    and the seed. A run that an earlier version kept in runs/PRESET-seedN is found there.
    """
    tail = re.split("[:/]", config.dataset.rstrip("/"))[-1]
    name, base = f"{config.model}-{tail}", TrainConfig(model=config.model, dataset=config.dataset)
    if config.preset in PRESETS:
        name, base = config.preset, PRESETS[config.preset].config
    differing = configs.differences(config, base)
    differing.pop("seed", None)
    for field, (value, _) in differing.items():
        name += f"-{field.rpartition('.')[2]}={json.dumps(value, separators=(',', ':'))}"
    name = re.sub(r"[^\w.,=+-]+", "_", re.sub(r'[]["]', "", name))
    if len(name) > MAX_NAME:
        name = f"{name[:MAX_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    workdir = f"runs/{name}-seed{config.seed}"
    earlier = f"runs/{config.preset}-seed{config.seed}"
    if not os.path.exists(workdir):
        with contextlib.suppress(UserError):  # there is no such run
            if not configs.differences(config, read_config(Path(earlier))):
                return earlier
    return workdir


def continued(config: TrainConfig) -> TrainConfig:
    """Return the config that makes an existing run longer, to `config.epochs`.

    Args:
      config: config of the run, but for `epochs`. If `workdir` is None, the run is the only one in
        runs/ that differs in `epochs` alone.

    Raises:
      UserError: there is no such run, there are several, or it is not shorter.
    """
    workdir = local_path(config.workdir, "`workdir`") if config.workdir else _find_run(config)
    before = read_config(workdir)
    config = dataclasses.replace(config, workdir=str(workdir))
    if before.epochs == config.epochs and before.continued_from:  # the same command again
        return dataclasses.replace(config, continued_from=before.continued_from)
    if before.epochs >= config.epochs:
        raise UserError(
            f"`epochs` is {config.epochs}, but the run in {workdir} has {before.epochs} already; "
            "expected more, to continue it"
        )
    return dataclasses.replace(config, continued_from=(*before.continued_from, before.epochs))


def with_earlier_lengths(config: TrainConfig, workdir: Path) -> TrainConfig:
    """Return the config with the lengths of the continued run that resumes in a folder."""
    if config.continued_from or not (workdir / "config.json").exists():
        return config
    return dataclasses.replace(config, continued_from=read_config(workdir).continued_from)


def _find_run(config: TrainConfig) -> Path:
    config, found = configs.with_whole_paths(config), []
    for path in sorted(Path("runs").glob("*/config.json")):
        with contextlib.suppress(UserError):  # it cannot be read
            before = configs.with_whole_paths(read_config(path.parent))
            if configs.differences(config, before).keys() <= {"epochs"}:
                found.append(path.parent)
    if len(found) != 1:
        there_are = f"{len(found)}, {', '.join(map(str, found))}" if found else "none"
        raise UserError(
            "`continue` needs one run in runs/ that differs from these flags in `epochs` alone; "
            f"there are {there_are}; name the folder of the run with `workdir`"
        )
    return found[0]


@contextlib.contextmanager
def lock_run_folder(config: TrainConfig) -> Iterator[Path]:
    """Create the run folder and lock it while the context lasts.

    Of several processes, process 0 locks it for all. The folder of a finished run is only read, and
    may lie on a read-only disk. A folder that stays empty is removed again.

    Raises:
      UserError: the folder cannot be written or has a name that Orbax cannot read, another process
        trains in it, or it holds a checkpoint or a result of a run with another config.
    """
    from jaxcnn.distributed import processes  # late: it imports jax, and readers need none

    workdir = local_path(config.workdir or default_workdir(config), "`workdir`")
    # Orbax (0.12.4 and 0.12.8 with etils 1.15) looks for its files by a pattern with this path.
    if any("\\" in part or not fnmatchcase(part, part) for part in workdir.absolute().parts):
        raise UserError(
            f"`workdir` is {str(workdir.absolute())!r}; expected a path without \\ and without "
            "brackets around a name, because Orbax cannot read checkpoints there"
        )
    if any("\ud800" <= character <= "\udfff" for character in str(workdir)):  # bytes of no UTF-8
        raise UserError(
            f"`workdir` is {str(workdir)!r}; expected a path in UTF-8, because TensorStore cannot "
            "write checkpoints elsewhere"
        )
    if read_result(workdir, config.epochs) is not None:
        _refuse_another_run(config, workdir)
        yield workdir
        return
    new_folders = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            if processes.is_process_0():
                stack.enter_context(lock(workdir))
        except OSError as error:
            raise UserError(
                f"cannot write in {workdir}: {error.strerror}; choose another `workdir`"
            ) from None
        if new_folders:
            stack.callback(_remove_if_empty, new_folders)
        if _has_come_to_something(workdir):
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
        config = configs.from_dict(records.read(path))
    except FileNotFoundError:
        raise UserError(f"{workdir} holds no run: there is no {path}") from None
    except UserError as error:
        raise UserError(
            f"{path} is not a config that this jaxcnn can read: {error}; delete the file and start "
            "the run's command again, which writes a new one if the checkpoints agree"
        ) from None
    return dataclasses.replace(
        config,
        data_dir=config.data_dir if data_dir is None else data_dir,
        manual_dir=config.manual_dir if manual_dir is None else manual_dir,
    )


def read_result(workdir: Path, epochs: int | None = None) -> Result | None:
    """Return the result of a finished run, or None if the run is not finished.

    Args:
      workdir: folder of the run.
      epochs: length of the run; the result of a shorter run, which is continued, is None.

    Raises:
      UserError: result.json cannot be read.
    """
    path = workdir / "result.json"
    try:
        record = records.read(path)
        result: Result = records.convert(records.unsealed(record), Result)
        records.check_seal(record)
        return None if epochs is not None and result["epochs"] < epochs else result
    except FileNotFoundError:
        return None
    except UserError as error:
        raise UserError(
            f"{path} is not a result that this jaxcnn can read: {error}; delete the file and start "
            "the run's command again, which writes a new one from the last checkpoint"
        ) from None


def _remove_if_empty(new_folders: list[Path]) -> None:
    """Remove a new run folder and its new parents if nothing was written, as by a refused run."""
    workdir = new_folders[0]
    if {path.name for path in workdir.iterdir()} <= {".lock"}:
        (workdir / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process has written there meanwhile
            for folder in new_folders:
                folder.rmdir()


def _has_come_to_something(workdir: Path) -> bool:
    """Return whether the folder holds a checkpoint, readable or not, or a result."""
    folders = workdir / "checkpoints", workdir / "unreadable"
    return (workdir / "result.json").exists() or any(
        path.name.isdigit() for folder in folders for path in folder.glob("*")
    )


def _refuse_another_run(config: TrainConfig, workdir: Path) -> None:
    if (workdir / "config.json").exists():
        theirs = configs.with_whole_paths(read_config(workdir))
        if text := configs.describe_differences(config, theirs):
            raise UserError(
                f"{workdir} holds a run of another config: {text}; choose another `workdir`"
            )
    elif (workdir / "result.json").exists():  # checkpoints say themselves whose they are
        raise UserError(
            f"{workdir} holds a result.json but no config.json, which says of which run it is; "
            "choose another `workdir`"
        )
