"""The metadata of a checkpoint: its types, and how each format of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypedDict

from jaxcnn import config as configs
from jaxcnn import records
from jaxcnn.config import NOT_NEGATIVE, TrainConfig
from jaxcnn.errors import RunError, UserError
from jaxcnn.workdir.metrics_log import LogDigest

# Format of the metadata. 2: sealed, with the config and the test accuracy; 1: of the development
# versions of 0.1.0, where Orbax kept the test accuracy in a file of its own.
FORMAT_VERSION = 2


class MetricSums(TypedDict):
    """Sums over the examples since the last logged step."""

    loss: float
    correct: float
    count: float


class Evaluation(TypedDict):
    """Means over a set, and its size."""

    loss: float
    accuracy: float
    num_examples: int


class _Progress(TypedDict):
    metrics: MetricSums
    test: Evaluation | None
    train_seconds: Annotated[float, NOT_NEGATIVE]
    compile_seconds: Annotated[float, NOT_NEGATIVE]
    total_seconds: Annotated[float, NOT_NEGATIVE]


class Validation(Evaluation):
    """Means over the validation split, and how they compare with those before."""

    best_accuracy: float
    evaluations_since_best: Annotated[int, NOT_NEGATIVE]


class Progress(_Progress, total=False):
    """What a run needs besides its state to continue.

    `log` is missing in format 1, `skipped_steps` in earlier versions, `validation` in a run without
    a validation split, `training` unless the training set is evaluated.
    """

    log: LogDigest | None
    skipped_steps: Annotated[int, NOT_NEGATIVE]
    validation: Validation | None
    training: Evaluation | None


class _Metadata(TypedDict):
    format_version: int
    checksum: int
    config: dict[str, Any] | None
    test_accuracy: float | None
    progress: Progress


class Metadata(_Metadata, total=False):
    """Metadata of a checkpoint, as stored; `val_accuracy` if it was evaluated on that split."""

    val_accuracy: float


class Format1Metrics(TypedDict):
    """The file in which Orbax kept the test accuracy of a checkpoint of format 1."""

    test_accuracy: float


class DamagedCheckpoint(RunError):
    """A checkpoint that differs from what was saved, or cannot be read."""


class ForeignCheckpoint(UserError):
    """A checkpoint of another run: of another config, or another model."""


class NewerFormat(UserError):
    """A checkpoint that a later version of jaxcnn wrote."""


def read_metadata(where: Path, config: TrainConfig | None) -> Metadata:
    """Return the metadata of the checkpoint in a folder, of any format.

    Args:
      where: folder of the checkpoint.
      config: config of the run that must have written it; None skips the check.

    Raises:
      DamagedCheckpoint: the metadata cannot be read, or differs from what was saved.
      ForeignCheckpoint: the checkpoint is of another run.
      NewerFormat: a later version wrote it.
    """
    metadata = _read(where)
    if config is None:
        return metadata
    if metadata["config"] is not None:
        theirs = configs.from_dict(metadata["config"])
        if text := configs.describe_differences(config, theirs):
            raise ForeignCheckpoint(f"{where} is of another run: {text}; choose another `workdir`")
    elif metadata["format_version"] == 1:
        config_file = where.parent.with_name("config.json")
        if not config_file.exists():
            raise ForeignCheckpoint(
                f"{config_file} is missing, and {where}, of an earlier version, does not say of "
                "which run it is; restore that file or choose another `workdir`"
            )
    return metadata


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(where: Path) -> Metadata:
    try:
        record = records.read(where / "metadata" / "metadata")
        stored = records.unsealed(record)
        version = records.convert(stored.get("format_version"), int, "format_version")
        if records.SEAL not in record:
            if version != 1:
                raise UserError(f"format_version is {version}, but {records.SEAL} is missing")
            stored |= {"config": None, "test_accuracy": _test_accuracy_of_format_1(where)}
            return records.convert(stored, Metadata)
        records.check_seal(record)
        if version > FORMAT_VERSION:
            raise NewerFormat(
                f"{where} has format {version}; expected at most {FORMAT_VERSION}; update jaxcnn"
            )
        return records.convert(stored, Metadata)
    except NewerFormat:
        raise
    except (OSError, UserError) as error:
        raise DamagedCheckpoint(f"{where} cannot be read: {first_line(error)}") from None


def _test_accuracy_of_format_1(where: Path) -> float | None:
    path = where / "metrics" / "metrics"
    if not path.parent.exists():  # it was not evaluated
        return None
    return records.convert(records.read(path), Format1Metrics)["test_accuracy"]
