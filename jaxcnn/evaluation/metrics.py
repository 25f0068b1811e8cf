"""Accuracy, confusion, calibration and rejection of predictions, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

NUM_BINS = 15  # of the calibration error, as in Guo et al. 2017
TARGET_ERROR = 0.005  # of the answers that are not rejected, as in LeCun et al. 1998, figure 10
LEGIBLE_CLASSES = 20  # a larger confusion matrix fits neither a table nor a picture


def top_accuracy(
    log_probs: Float[np.ndarray, "examples classes"],
    labels: Int[np.ndarray, " examples"],
    k: int,
) -> float:
    """Return the fraction of examples whose label is in the top `k` classes; ties count."""
    of_labels = np.take_along_axis(log_probs, labels[:, None], axis=1)
    return float(((log_probs > of_labels).sum(axis=1) < k).mean())


def confusion_matrix(
    labels: Int[np.ndarray, " examples"],
    predictions: Int[np.ndarray, " examples"],
    num_classes: int,
) -> Int[np.ndarray, "num_classes num_classes"]:
    """Count, for each class (row), how often each class (column) was predicted."""
    pairs = labels.astype(np.int64) * num_classes + predictions
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def precision_recall(
    confusion: Int[np.ndarray, "classes classes"],
) -> tuple[Float[np.ndarray, " classes"], Float[np.ndarray, " classes"]]:
    """Return precision and recall of each class, in [0, 1]; NaN where they have no examples."""
    correct = np.diag(confusion).astype(float)
    with np.errstate(invalid="ignore"):
        return correct / confusion.sum(axis=0), correct / confusion.sum(axis=1)


def balanced_accuracy(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the mean recall of the classes that have examples."""
    _, recall = precision_recall(confusion)
    return float(np.nanmean(recall))


def macro_f1(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Return the mean F1 score of the classes that have examples or predictions."""
    sums = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float((2 * np.diag(confusion)[sums > 0] / sums[sums > 0]).mean())


class Calibration(NamedTuple):
    """Answers in bins of equal width of their confidence, the probability of the answer.

    Attributes:
      counts: number of answers in each bin; bin i of n holds confidences in (i / n, (i + 1) / n].
      confidences: mean confidence in each bin, NaN in an empty one.
      accuracies: accuracy in each bin, NaN in an empty one.
      error: expected calibration error, the mean over all answers of the difference between the
        accuracy and the mean confidence of the bin.
    """

    counts: Int[np.ndarray, " bins"]
    confidences: Float[np.ndarray, " bins"]
    accuracies: Float[np.ndarray, " bins"]
    error: float


def calibration(
    confidences: Float[np.ndarray, " examples"],
    correct: Bool[np.ndarray, " examples"],
    *,
    num_bins: int = NUM_BINS,
) -> Calibration:
    """Compare the confidence of answers with their accuracy, in bins of confidence.

    References:
      Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", 2017, section 2.
    """
    bins = np.clip(np.ceil(confidences * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = np.bincount(bins, weights=confidences, minlength=num_bins)
    right = np.bincount(bins, weights=correct, minlength=num_bins)
    error = float(np.abs(sums - right).sum() / max(1, len(confidences)))
    with np.errstate(invalid="ignore"):
        return Calibration(counts, sums / counts, right / counts, error)


def margins(log_probs: Float[np.ndarray, "examples classes"]) -> Float[np.ndarray, " examples"]:
    """Return how much more probable the answer is than the second class, as a log-ratio.

    This is the difference between the two largest outputs of the network, by which LeCun et al.
    1998 decide upon rejection, for cross-entropy and for the criterion of 1998.
    """
    if log_probs.shape[1] < 2:
        return log_probs[:, 0]
    second, first = np.partition(log_probs, -2, axis=1)[:, -2:].T
    return first - second


def rejection_errors(
    scores: Float[np.ndarray, " examples"], correct: Bool[np.ndarray, " examples"]
) -> Float[np.ndarray, " examples"]:
    """Return the error of the accepted answers, when the k of the lowest scores are rejected.

    Entry k is the error of the other `examples - k` answers, for k from 0 to `examples - 1`.
    Answers of equal scores are rejected in their order.
    """
    wrong = ~correct[np.argsort(scores, kind="stable")]
    num_wrong = np.cumsum(wrong[::-1])[::-1]  # among the answers from k on
    return num_wrong / np.arange(len(wrong), 0, -1)


def rejection_rate(
    errors: Float[np.ndarray, " examples"], target: float = TARGET_ERROR
) -> float | None:
    """Return the least fraction to reject so that the error of the others is at most `target`.

    Args:
      errors: result of `rejection_errors`.
      target: error of the accepted answers, in [0, 1].

    Returns:
      A fraction in [0, 1), or None if the most certain answer alone is wrong.
    """
    reached = np.flatnonzero(errors <= target)
    return float(reached[0] / len(errors)) if len(reached) else None


def measure(
    labels: Int[np.ndarray, " examples"],
    log_probs: Float[np.ndarray, "examples classes"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return the numbers of an evaluation as JSON types; the class names are in label order."""
    answers = log_probs.argmax(-1)
    confusion = confusion_matrix(labels, answers, len(class_names))
    precision, recall = precision_recall(confusion)
    correct = answers == labels
    confidences = np.exp(log_probs.max(-1).astype(float))
    errors = rejection_errors(margins(log_probs), correct)
    evaluation = {
        "num_test_examples": len(labels),
        "test_loss": -float(log_probs[np.arange(len(labels)), labels].mean(dtype=float)),
        "test_accuracy": float(correct.mean()),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
        "expected_calibration_error": calibration(confidences, correct).error,
        "rejection_for_half_percent_error": rejection_rate(errors),
    }
    if len(class_names) > LEGIBLE_CLASSES:
        evaluation["test_top_5_accuracy"] = top_accuracy(log_probs, labels, 5)
    return {
        **evaluation,
        "class_names": list(class_names),
        "num_examples": confusion.sum(axis=1).tolist(),
        "precision": [None if math.isnan(x) else x for x in precision.tolist()],
        "recall": [None if math.isnan(x) else x for x in recall.tolist()],
        "confusion": confusion.tolist(),
    }
