"""What studies read in the results and the log of a finished run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.metrics_log import read_metrics


def test_error(run: Path) -> Measured:
    """Return the test error of a run in percent, as training reported it."""
    result = workdirs.read_result(run)
    assert result is not None
    return {"test_error": 100 * (1 - result["test_accuracy"])}


def loss_by_epoch(run: Path) -> Measured:
    """Return the test error of a run in percent, and `train_loss`, its mean over each epoch."""
    return {**test_error(run), "train_loss": _by_epoch(run, "train_loss")}


def train_and_test_error(run: Path) -> Measured:
    """Return the errors of a run with `eval_training`.

    Returns:
      `test_error` and `training_error`, in percent; `gap`, the first less the second, in points.
    """
    result = workdirs.read_result(run)
    assert result is not None
    training = 100 * (1 - result["train_eval_accuracy"])
    gap = 100 * (result["train_eval_accuracy"] - result["test_accuracy"])
    return {**test_error(run), "training_error": training, "gap": gap}


def last_errors(run: Path) -> Measured:
    """Return the test error of a run, and `training_error` during its last epoch, in percent."""
    accuracy = _by_epoch(run, "train_accuracy")[-1]
    return {**test_error(run), "training_error": 100 * (1 - accuracy)}


def errors_by_epoch(run: Path) -> Measured:
    """Return the errors of a run with `eval_training` after each epoch, in percent.

    Returns:
      `test_error`, the last; `test_errors`; `training_errors_after`, counted with the parameters at
      the end of the epoch; `training_errors_during`, counted while they change; of these two, the
      first as `training_error_after_1` and `training_error_during_1`; `test_error_1`, the first
      test error; `rise`, the last test error above the smallest, in points.
    """
    lines = [line for line in read_metrics(run) if "test_accuracy" in line]
    test = [100 * (1 - line["test_accuracy"]) for line in lines]
    after = [100 * (1 - line["train_eval_accuracy"]) for line in lines]
    during = [100 * (1 - accuracy) for accuracy in _by_epoch(run, "train_accuracy")]
    return {
        **test_error(run),
        "test_errors": test,
        "training_errors_after": after,
        "training_errors_during": during,
        "training_error_after_1": after[0],
        "training_error_during_1": during[0],
        "test_error_1": test[0],
        "rise": test[-1] - min(test),
    }


def epochs_to_quarter(run: Path) -> Measured:
    """Return how many epochs a run takes to a training error of 25 %.

    Returns:
      `test_error`, in percent; `training_errors`, the mean over each epoch while the network
      changes; `epochs`, where a line through these errors first crosses 25 %, or all epochs of the
      run if it never does.
    """
    errors = [100 * (1 - accuracy) for accuracy in _by_epoch(run, "train_accuracy")]
    below = next((number for number, error in enumerate(errors) if error <= 25), None)
    if below is None:
        epochs = float(len(errors))
    elif below == 0:
        epochs = 1.0
    else:
        high, low = errors[below - 1 : below + 1]
        epochs = below + (high - 25) / (high - low)
    return {**test_error(run), "training_errors": errors, "epochs": epochs}


def _by_epoch(run: Path, quantity: Literal["train_loss", "train_accuracy"]) -> list[float]:
    """Return the mean of a training metric over each epoch; a line is a mean since the last one."""
    sums: dict[int, list[float]] = {}
    previous = 0
    for line in read_metrics(run):
        if quantity in line:
            steps = line["step"] - previous
            previous = line["step"]
            sums.setdefault(math.ceil(round(line["epoch"], 6)), []).extend(
                [steps * line[quantity], steps]
            )
    return [sum(pairs[::2]) / sum(pairs[1::2]) for _, pairs in sorted(sums.items())]
