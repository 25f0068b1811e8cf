"""Sum up the measurements of a study over its seeds, as JSON types."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from jaxcnn.evaluation.runs import label
from jaxcnn.studies import statistics
from jaxcnn.studies.statistics import Difference, Spread
from jaxcnn.studies.study import Arm, Measured, Study


def summarize(
    study: Study,
    seeds: Sequence[int],
    measured: Mapping[tuple[str, int], Measured],
    num_examples: Mapping[str, int],
) -> dict[str, Any]:
    """Return the part of `study.json` that the measurements decide.

    Args:
      study: the study.
      seeds: the seeds.
      measured: what was measured, by arm and seed.
      num_examples: number of test images of each arm.
    """
    arms: dict[str, Any] = {}
    for number, arm in enumerate(study.arms):
        baseline = study.arms[number - 1 if study.stepwise else 0] if number else None
        arms[arm.name] = _arm(study, arm, baseline, seeds, measured, num_examples[arm.name])
    by_seed = [{arm.name: measured[arm.name, seed] for arm in study.arms} for seed in seeds]
    derived = {
        each.name: {"label": each.label, **_spread_of(map(each.compute, by_seed))}
        for each in study.derived
    }
    return {
        "seeds": list(seeds),
        "quantity": study.quantity,
        "label": study.label,
        "stepwise": study.stepwise,
        "arms": arms,
        "derived": derived,
    }


def _arm(
    study: Study,
    arm: Arm,
    baseline: Arm | None,
    seeds: Sequence[int],
    measured: Mapping[tuple[str, int], Measured],
    num_examples: int,
) -> dict[str, Any]:
    """Return the numbers of one arm and of its paired differences from a baseline."""

    def of_seeds(name: str, quantity: str) -> list[float]:
        return [_number(measured[name, seed][quantity]) for seed in seeds]

    mine = of_seeds(arm.name, study.quantity)
    versus = None
    if baseline:
        versus = statistics.difference(mine, of_seeds(baseline.name, study.quantity))
    return {
        "config": label(arm.config),
        "values": mine,
        **_as_dict(statistics.spread(mine)),
        "sampling_std": statistics.sampling_std(fmean(mine), num_examples)
        if study.is_rate
        else None,
        "difference": versus and _difference(versus),
        "published": arm.published and dataclasses.asdict(arm.published),
        "verdict": statistics.verdict(mine, arm.published, versus, arm.expected),
        "conclusion": _conclusion(versus, arm.expected),
        "differs": versus and _sign(versus) != 0,
        "as_claimed": _sign(versus) == arm.expected if versus and arm.expected else None,
        "also": {name: _also(arm, name, of_seeds(arm.name, name)) for name in study.also},
        "curves": {
            curve.quantity: [
                list(_list(measured[arm.name, seed][curve.quantity])) for seed in seeds
            ]
            for curve in study.curves
        },
    }


def _also(arm: Arm, name: str, values: Iterable[float]) -> dict[str, Any]:
    published = arm.also_published.get(name)
    return {
        **_spread_of(values),
        **({"published": dataclasses.asdict(published)} if published else {}),
    }


def _spread_of(values: Iterable[float]) -> dict[str, Any]:
    """Return values that are numbers with their spread; those that are NaN are left out."""
    known = [value for value in values if not math.isnan(value)]
    return {"values": known, **(_as_dict(statistics.spread(known)) if known else {})}


def _sign(versus: Difference) -> int:
    """Return the sign of a difference whose interval excludes 0, else 0; of one seed, its sign."""
    mean, _, low, high = versus.spread
    if math.isnan(low):
        low = high = mean
    return int(low > 0) - int(high < 0)


def _conclusion(versus: Difference | None, expected: int) -> str:
    """Describe the difference from the baseline in words that follow from its numbers."""
    if versus is None:
        return ""
    mean, _, low, high = versus.spread
    text = f"{mean:+.2f}" + ("" if math.isnan(low) else f" ({low:+.2f} to {high:+.2f})")
    if expected:
        count = statistics.agrees(versus, expected)
        text += f"; the sign is as claimed in {count} of {versus.num_seeds} seeds"
    return text


def _as_dict(spread: Spread) -> dict[str, float | None]:
    return {name: None if math.isnan(x) else x for name, x in spread._asdict().items()}


def _difference(versus: Difference) -> dict[str, Any]:
    counts = {"num_positive": versus.num_positive, "num_negative": versus.num_negative}
    return {**_as_dict(versus.spread), **counts}


def _number(value: float | list[float]) -> float:
    assert not isinstance(value, list)
    return value


def _list(value: float | list[float]) -> list[float]:
    assert isinstance(value, list)
    return value
