"""Figure 9 of 1998: its bars, and the order of the measured ones."""

import pytest

from jaxcnn.studies.digits import DIGITS, PRINTED


def test_digits_has_22_of_the_27_bars_of_figure_9():
    published = {arm.name: arm.published.value for arm in DIGITS.arms if arm.published}
    assert published == {name: error for name, (error, _) in PRINTED.items()}
    assert len(published) == 22
    rejected = [arm.name for arm in DIGITS.arms if arm.also_published]
    assert rejected == [arm.name for arm in DIGITS.arms if PRINTED.get(arm.name, (0, None))[1]]


def test_share_of_pairs_in_the_printed_order():
    [same_order] = DIGITS.derived
    printed = {name: {"test_error": error} for name, (error, _) in PRINTED.items()}
    assert same_order.compute(printed) == 100
    opposite = {name: {"test_error": -error} for name, (error, _) in PRINTED.items()}
    assert same_order.compute(opposite) == 0
    tied = printed | {"linear": {"test_error": 3.6}}  # apart from 21 others, larger than 16 now
    pairs = sum(abs(a - b) >= 0.3 for a, _ in PRINTED.values() for b, _ in PRINTED.values()) / 2
    smaller = sum(error < 3.6 for error, _ in PRINTED.values())
    assert same_order.compute(tied) == pytest.approx(100 * (pairs - 21 + smaller) / pairs)
