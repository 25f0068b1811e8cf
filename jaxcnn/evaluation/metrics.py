"""Accuracy, the confusion matrix, precision and recall of predictions, on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

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


def measure(
    labels: Int[np.ndarray, " examples"],
    log_probs: Float[np.ndarray, "examples classes"],
    class_names: Sequence[str],
) -> dict[str, Any]:
    """Return the numbers of an evaluation as JSON types; the class names are in label order."""
    answers = log_probs.argmax(-1)
    confusion = confusion_matrix(labels, answers, len(class_names))
    precision, recall = precision_recall(confusion)
    evaluation = {
        "num_test_examples": len(labels),
        "test_loss": -float(log_probs[np.arange(len(labels)), labels].mean(dtype=float)),
        "test_accuracy": float((answers == labels).mean()),
        "balanced_accuracy": balanced_accuracy(confusion),
        "macro_f1": macro_f1(confusion),
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
