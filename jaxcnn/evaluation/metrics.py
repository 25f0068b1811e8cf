"""Accuracy, the confusion matrix, precision and recall of predictions, on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


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
