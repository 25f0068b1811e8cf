"""The study of costs, against arithmetic by hand and the figures of 1998."""

import numpy as np
import pytest

from jaxcnn.studies import cost_numbers as numbers
from jaxcnn.studies import run_study
from jaxcnn.studies.cost_1998 import BARS, inconsistencies


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("cost")
        monkeypatch.chdir(folder)
        record = run_study("cost", quick=True)
        assert (folder / "runs/studies/cost-quick/figure.png").stat().st_size > 10_000
    return record


def test_cost_has_the_numbers_of_arithmetic(record):
    convolutions = 6 * 26 + 16 * 151 + 120 * 401
    full = 120 * 84 + 84 + 84 * 10 + 10
    without = 20 * 20 * 120 * 84 + 84 + 84 * 10 + 10
    assert {name: list(arm["numbers"].values()) for name, arm in record["arms"].items()} == {
        "pools and multiply-adds": [
            28**2 * 6 * 25 + 24**2 * 16 * 150 + 20**2 * 120 * 400 + 48_000 * 84 + 840,
            28**2 * 6 * 25 + 10**2 * 16 * 150 + 120 * 400 + 120 * 84 + 840,
        ],
        "pools and activations": [
            28**2 * 6 + 24**2 * 16 + 20**2 * 120 + 94,
            (28**2 + 14**2) * 6 + (10**2 + 5**2) * 16 + 120 + 94,
        ],
        "pools and parameters": [convolutions + without, convolutions + full],
        "pools and convolutions": [convolutions, convolutions],
        "pools and receptive field": [28, 5 + 4 + 4],
        "sharing in C1": [28**2 * 6 * 26, 6 * 26],
        "sharing in C3": [10**2 * 16 * 151, 16 * 151],
        "sharing in C5": [120 * 401, 120 * 401],
        "sharing in LeNet-5 of 1998": [340_908, 60_000],
        "SAME and size": [28, 28],
        "VALID and size": [28, 24],
        "FULL and size": [32, 28],
        "SAME and corners": [9, 1],
        "FULL and pixels": [25, 25],
        "FULL and pixels at S4": [16, 16],
    }
    contradicted = {name for name, arm in record["arms"].items() if arm["verdict"] != "holds"}
    assert contradicted == {"pools and convolutions", "sharing in C5"}


@pytest.mark.parametrize("padding", numbers.PADDINGS)
def test_outputs_entered_counts_windows(padding):
    windows = numbers.first_stages(padding)
    low = {"VALID": 0, "SAME": 2, "FULL": 4}[padding]
    reached = np.eye(28, dtype=bool)  # of each output, the positions that enter it
    for window, pad in zip(windows, (low, 0, low, 0), strict=True):
        padded = np.pad(reached, ((pad, pad), (0, 0)))
        starts = range(0, len(padded) - window.kernel_size + 1, window.strides)
        reached = np.array([padded[i : i + window.kernel_size].any(0) for i in starts])
    assert numbers.outputs_entered(windows).tolist() == reached.sum(0).tolist()
    assert numbers.sizes(windows)[-1] == len(reached)


def test_printed_bars_are_ours_but_for_lenet5s_operations_and_lenet4s_variables():
    far = []
    for bar in BARS:
        if bar.counts:
            ours = bar.counts()
            for theirs, value in (
                (bar.figure11, ours.connections),
                (bar.figure12, ours.parameters),
            ):
                if abs(1000 * theirs - value) > max(999, 0.02 * value):
                    far.append((bar.method, theirs, value))
    assert far == [
        ("LeNet-4", 17, 50_698),
        ("LeNet-5", 401, 340_908),
        ("[dist] Boosted LeNet-4", 51, 3 * 50_698),
    ]


def test_inconsistencies_are_computed():
    table = inconsistencies()
    assert all(len(row) == len(table.columns) and row[1] != row[2] for row in table.rows)
    text = " ".join(str(cell) for row in table.rows for cell in row)
    for number in (400_908, 430_908, 50_698, 262_306, 469_160, 936_660, 35_325, 7850, 290_400):
        assert f"{number:,}" in text
