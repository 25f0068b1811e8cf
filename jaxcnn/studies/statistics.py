"""Means over seeds, paired differences, and the verdict on a published figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import stats

from jaxcnn.studies.study import Published

LEVEL = 0.95  # of the intervals

Word = Literal["reproduced", "direction only", "not reproduced", "no number printed"]


class Spread(NamedTuple):
    """Mean and sample standard deviation over seeds, and the interval of the mean.

    `std`, `low` and `high` are NaN for a single seed.
    """

    mean: float
    std: float
    low: float
    high: float


class Difference(NamedTuple):
    """Paired differences of an arm from the baseline, seed by seed."""

    spread: Spread
    num_seeds: int
    num_positive: int
    num_negative: int


def spread(values: Sequence[float]) -> Spread:
    """Return mean, standard deviation and the t interval of the mean."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Spread(mean, math.nan, math.nan, math.nan)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * std / math.sqrt(n)
    return Spread(mean, std, mean - half, mean + half)


def difference(values: Sequence[float], baseline: Sequence[float]) -> Difference:
    """Return the paired differences of values from those of the baseline with the same seeds."""
    differences = np.subtract(values, baseline)
    return Difference(
        spread(differences.tolist()),
        len(differences),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
    )


def sampling_std(percent: float, num_examples: int) -> float:
    """Return the standard deviation of a rate, in percent, that comes from the finite test set."""
    rate = percent / 100
    return 100 * math.sqrt(rate * (1 - rate) / num_examples)


def verdict(
    values: Sequence[float], published: Published | None, versus: Difference | None, expected: int
) -> Word:
    """Return the verdict on one arm.

    A published figure is reproduced if it lies in the t interval of our mean, widened by the
    sampling error of the published figure itself. Otherwise the verdict is "direction only" if the
    difference from the baseline has the expected sign in every seed.

    Args:
      values: the main quantity, by seed.
      published: the source's figure.
      versus: difference from the baseline.
      expected: sign that the claim predicts for the difference; 0 for none.
    """
    if published is None:
        return "no number printed"
    ours = spread(values)
    half = 0.0 if math.isnan(ours.high) else ours.high - ours.mean
    if published.num_examples:
        z = float(stats.norm.ppf((1 + LEVEL) / 2))
        half = math.hypot(half, z * sampling_std(published.value, published.num_examples))
    if abs(published.value - ours.mean) <= half:
        return "reproduced"
    if versus is not None and expected and agrees(versus, expected) == versus.num_seeds:
        return "direction only"
    return "not reproduced"


def agrees(versus: Difference, expected: int) -> int:
    """Return the number of seeds whose difference has the expected sign."""
    return versus.num_positive if expected > 0 else versus.num_negative
