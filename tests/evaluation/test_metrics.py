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


def test_calibration_by_eye():
    confidences = np.array([0.05, 0.5, 0.45, 0.95, 1.0, 0.9])  # 0.5 ends the first of two bins
    correct = np.array([False, True, False, True, True, False])
    found = metrics.calibration(confidences, correct, num_bins=2)
    assert found.counts.tolist() == [3, 3]
    chex.assert_trees_all_close(found.confidences, np.array([1 / 3, 2.85 / 3]))
    chex.assert_trees_all_close(found.accuracies, np.array([1 / 3, 2 / 3]))
    assert found.error == pytest.approx((0 + 3 * (0.95 - 2 / 3)) / 6)


def test_calibration_of_one_bin_is_the_difference_of_the_means():
    rng = np.random.default_rng(0)
    confidences, correct = rng.random(1000), rng.random(1000) < 0.7
    (count,), *_, error = metrics.calibration(confidences, correct, num_bins=1)
    assert count == 1000 and error == pytest.approx(abs(confidences.mean() - correct.mean()))
    empty = metrics.calibration(np.array([0.0, 1.0]), np.array([False, True]), num_bins=3)
    assert empty.counts.tolist() == [1, 0, 1] and np.isnan(empty.accuracies[1])
    assert empty.error == 0


def test_margins_are_differences_of_the_two_best_classes():
    log_probs = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    chex.assert_trees_all_close(metrics.margins(log_probs), np.log([5 / 3, 7 / 2]))
    assert metrics.margins(np.zeros((3, 1))).tolist() == [0, 0, 0]  # a single class


def test_rejection_errors_by_eye():
    scores = np.array([3.0, 1.0, 2.0, 5.0, 4.0])
    correct = np.array([True, False, True, True, False])  # the lowest and the second highest
    errors = metrics.rejection_errors(scores, correct)
    chex.assert_trees_all_close(errors, np.array([2 / 5, 1 / 4, 1 / 3, 1 / 2, 0]))
    assert metrics.rejection_rate(errors, 0.5) == 0
    assert metrics.rejection_rate(errors, 0.3) == 1 / 5
    assert metrics.rejection_rate(errors, 0.25) == 1 / 5
    assert metrics.rejection_rate(errors, 0.1) == 4 / 5
    assert metrics.rejection_rate(np.array([1.0, 1.0]), 0.5) is None


def test_measure_rejects_by_the_margin_of_the_classes():
    probabilities = np.full((1000, 2), (0.01, 0.99))
    probabilities[:20] = 0.4, 0.6  # the least certain; half of them are wrong
    labels = np.ones(1000, int)
    labels[:10] = 0
    found = metrics.measure(labels, np.log(probabilities), ("cat", "dog"))
    # Of the other 1000 - k answers, 10 - k may be wrong: k = 6 leaves 4 of 994.
    assert found["rejection_for_half_percent_error"] == pytest.approx(0.006)
    expected = (20 * abs(0.5 - 0.6) + 980 * 0.01) / 1000
    assert found["expected_calibration_error"] == pytest.approx(expected)
