"""The table that an evaluation prints."""

import io

import numpy as np
import pytest
from rich.console import Console

from jaxcnn.evaluation import table
from jaxcnn.evaluation.metrics import LEGIBLE_CLASSES

DIGITS = tuple("0123456789")


def numbers(confusion, names, recall=None, precision=None, **means):
    """Return the numbers of an evaluation."""
    ones = [1.0] * len(names)
    return {
        "test_accuracy": means.get("accuracy", 1.0),
        "test_loss": 0.1,
        "balanced_accuracy": 0.5,
        "macro_f1": 0.4321,
        "test_top_5_accuracy": 0.82,
        "class_names": names,
        "num_examples": confusion.sum(axis=1).tolist(),
        "recall": recall or ones,
        "precision": precision or ones,
        "confusion": confusion.tolist(),
    }


def test_print_evaluation_of_mnist_fits_into_80_columns(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(table, "console", console)
    confusion = np.full((10, 10), 1) + np.diag(np.full(10, 1134))
    table.print_evaluation(numbers(confusion, DIGITS))
    text = console.file.getvalue()
    assert "…" not in text and text.count("1135") == 10 and text.count("100.0%") == 20


@pytest.mark.parametrize(
    ("names", "width", "head", "first", "second"),
    [
        ((":dog:", "[b]x\\"), 80, "class :dog: [b]x\\ recall precision", ":dog:", "[b]x\\"),
        (("class a", "class b"), 40, "class 0 1 recall precision", "0 class a", "1 class b"),
    ],
)
def test_print_evaluation_numbers_classes_that_do_not_fit(
    names, width, head, first, second, monkeypatch
):
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(table, "console", console)
    confusion = np.array([[3, 0], [1, 0]])
    table.print_evaluation(numbers(confusion, names, recall=[1.0, 0.0], precision=[0.75, None]))
    said = " ".join(console.file.getvalue().split())
    assert "balanced accuracy 50.00%, macro F1 0.4321" in said
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert head.split() in lines
    assert [*first.split(), "3", "·", "100.0%", "75.0%"] in lines
    assert [*second.split(), "1", "0", "0.0%", "-"] in lines


def test_print_evaluation_leaves_a_wide_matrix_to_the_picture(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(table, "console", console)
    names = [f"class {i}" for i in range(20)]
    table.print_evaluation(numbers(1000 * np.eye(20, dtype=int), names))
    text = console.file.getvalue()
    assert "confusion.png" in text and "…" not in text
    assert ["class", "19", "100.0%", "100.0%"] in [line.split() for line in text.splitlines()]


def test_print_evaluation_of_many_classes_is_two_lines(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(table, "console", console)
    names = [f"class {i}" for i in range(LEGIBLE_CLASSES + 1)]
    table.print_evaluation(numbers(np.eye(len(names), dtype=int), names))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 and lines[1] == "top-5 accuracy 82.00%"
