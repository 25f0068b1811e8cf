"""Spread, paired differences and verdicts against scipy and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxcnn.studies import statistics
from jaxcnn.studies.study import Published

PERCENT = st.lists(st.floats(0.1, 50), min_size=2, max_size=12)


@given(PERCENT)
def test_spread_is_scipys_t_interval(values):
    mean, std, low, high = statistics.spread(values)
    assert mean == pytest.approx(np.mean(values))
    assert std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if std > 1e-6:
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_spread_of_a_single_seed_has_no_interval():
    mean, *rest = statistics.spread([1.5])
    assert mean == 1.5 and all(map(math.isnan, rest))


def test_difference_is_paired():
    # Unpaired, the seeds differ by far more than the arms do.
    values, baseline = [1.1, 5.2, 9.1, 3.3], [1.0, 5.0, 9.2, 3.0]
    versus = statistics.difference(values, baseline)
    expected = stats.ttest_rel(values, baseline).confidence_interval(0.95)
    assert (versus.spread.low, versus.spread.high) == pytest.approx((expected.low, expected.high))
    assert (versus.num_seeds, versus.num_positive, versus.num_negative) == (4, 3, 1)
    assert statistics.agrees(versus, 1) == 3 and statistics.agrees(versus, -1) == 1


def test_sampling_std_is_the_papers():
    # LeCun et al. 1998, caption of figure 9: "about 0.1 %" for rates near 1 % of 10,000 images.
    assert statistics.sampling_std(0.95, 10_000) == pytest.approx(0.097, abs=5e-4)


ABOVE = statistics.difference([2.0, 2.1], [1.0, 1.2])
MIXED = statistics.difference([2.0, 1.0], [1.0, 1.2])


@pytest.mark.parametrize(
    ("published", "versus", "expected", "word"),
    [
        (None, ABOVE, 1, "no number printed"),
        (Published(1.015, "here", "text"), None, 0, "reproduced"),
        (Published(3.0, "here", "text"), None, 0, "not reproduced"),
        (Published(3.0, "here", "text"), ABOVE, 1, "direction only"),
        (Published(3.0, "here", "text"), ABOVE, -1, "not reproduced"),
        (Published(3.0, "here", "text"), MIXED, 1, "not reproduced"),
        (Published(1.3, "here", "text", 10_000), None, 0, "not reproduced"),
        (Published(1.2, "here", "text", 10_000), None, 0, "reproduced"),  # +-0.21 of sampling
    ],
)
def test_verdict(published, versus, expected, word):
    values = [1.00, 1.02, 0.98, 1.01, 0.99]
    assert statistics.verdict(values, published, versus, expected) == word


def test_verdict_of_a_single_seed_allows_for_the_published_sampling_error_alone():
    near, far = (Published(value, "here", "text", 10_000) for value in (1.1, 1.5))
    assert statistics.verdict([1.0], near, None, 0) == "reproduced"
    assert statistics.verdict([1.0], far, None, 0) == "not reproduced"
