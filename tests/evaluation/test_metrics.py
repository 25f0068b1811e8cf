"""Confusion, precision, recall and top accuracy, by eye."""

import chex
import numpy as np
import pytest

from jaxcnn.evaluation import metrics


def test_confusion_matrix_by_eye():
    labels = np.array([0, 0, 1, 2, 2, 2])
    predictions = np.array([0, 1, 1, 2, 2, 0])
    expected = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    chex.assert_trees_all_equal(metrics.confusion_matrix(labels, predictions, 3), expected)


def test_confusion_matrix_of_many_classes_in_int8():
    labels = np.arange(100, dtype=np.int8)
    confusion = metrics.confusion_matrix(labels, labels[::-1], 100)
    chex.assert_trees_all_equal(confusion, np.eye(100, dtype=confusion.dtype)[::-1])


def test_precision_recall_by_eye():
    precision, recall = metrics.precision_recall(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]]))
    chex.assert_trees_all_close(precision, np.array([1 / 2, 1 / 2, 1]))
    chex.assert_trees_all_close(recall, np.array([1 / 2, 1, 2 / 3]))


def test_precision_recall_are_nan_for_absent_classes():
    # Class 0 is never called, class 1 is absent, class 2 is both.
    precision, recall = metrics.precision_recall(np.array([[0, 4, 0], [0, 0, 0], [0, 0, 0]]))
    chex.assert_trees_all_equal(precision, np.array([np.nan, 0, np.nan]))
    chex.assert_trees_all_equal(recall, np.array([0, np.nan, np.nan]))


def test_top_accuracy_by_eye():
    log_probs = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    labels = np.array([1, 0, 1])
    found = [metrics.top_accuracy(log_probs, labels, k) for k in (1, 2, 3)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1])


def test_balanced_accuracy_and_macro_f1_by_eye():
    # Recall 9/10 and 1/2, precision 9/10 and 1/2; the third class has neither.
    confusion = np.array([[9, 1, 0], [1, 1, 0], [0, 0, 0]])
    assert metrics.balanced_accuracy(confusion) == pytest.approx(0.7)
    assert metrics.macro_f1(confusion) == pytest.approx(0.7)
    # The second class is never right: F1 is 2 * 8 / 18 and 0.
    assert metrics.macro_f1(np.array([[8, 0], [2, 0]])) == pytest.approx(4 / 9)
