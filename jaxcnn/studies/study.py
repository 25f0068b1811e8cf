"""What a study is: a claim, the arms that test it, what is measured, and what was published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxcnn.config import TrainConfig

# Measured on one finished run: a number by name, or one for each value of a curve's axis.
Measured = Mapping[str, float | list[float]]


def folder_of(study: str, *, quick: bool = False) -> Path:
    """Return the folder of a study's result."""
    return Path("runs/studies") / (f"{study}-quick" if quick else study)


@dataclasses.dataclass(frozen=True)
class Published:
    """A figure that a source prints.

    Attributes:
      value: the figure, in the unit of the study's quantity.
      source: publication, with section, figure or table.
      how: how the figure was obtained: read in the text, or digitised from a plot.
      num_examples: test examples that it was counted on; None if that is unknown.
    """

    value: float
    source: str
    how: Literal["text", "digitised"]
    num_examples: int | None = None


@dataclasses.dataclass(frozen=True)
class Arm:
    """One condition of a study: an ordinary run, trained once with each seed.

    Attributes:
      name: name in tables and figures.
      config: config of the run; its seed is replaced. Arms of the same config share their runs.
      published: the source's figure for this condition.
      expected: sign of the difference from the baseline that the claim predicts; 0 for none.
      rates: learning rates to choose from, instead of the study's.
      also_published: the source's figures for quantities of `Study.also`.
      measure: function from the folder of a finished run to `Measured`; None is the study's.
      fit: function from the config, with a seed, to `Measured` with `num_test_examples`, for what
        is not trained by steps; there is no run then.
    """

    name: str
    config: TrainConfig
    published: Published | None = None
    expected: Literal[-1, 0, 1] = 0
    rates: tuple[float, ...] = ()
    also_published: Mapping[str, Published] = dataclasses.field(default_factory=dict)
    measure: Callable[[Path], Measured] | None = None
    fit: Callable[[TrainConfig], Measured] | None = None


@dataclasses.dataclass(frozen=True)
class Curve:
    """A quantity that is measured along an axis.

    Attributes:
      quantity: name in `Measured`, a list as long as `x`.
      x: values of the axis.
      x_label: name and unit of the axis.
      y_label: name and unit of the quantity.
      marks: values of `x` that the source names, drawn as vertical lines, with their text.
      published: values that a source prints, by `x`, drawn as points; the key names source and
        arm, and how they were read.
    """

    quantity: str
    x: tuple[float, ...]
    x_label: str
    y_label: str
    marks: Mapping[float, str] = dataclasses.field(default_factory=dict)
    published: Mapping[str, Mapping[float, float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Derived:
    """A number that is computed from all arms of a seed.

    Attributes:
      name: name in `study.json`.
      label: name and unit, for the page.
      compute: function from the arms' measurements, by name, to the number; NaN if there is none.
    """

    name: str
    label: str
    compute: Callable[[Mapping[str, Measured]], float]


def of_two(
    first: str, last: str, quantity: str, combine: Callable[[float, float], float]
) -> Callable[[Mapping[str, Measured]], float]:
    """Return a function for `Derived.compute` that combines a number of two arms.

    Args:
      first: name of an arm.
      last: name of another arm.
      quantity: name of the number in `Measured`.
      combine: function from the number of the first arm and that of the last to the result.
    """

    def compute(arms: Mapping[str, Measured]) -> float:
        one, other = (arms[name][quantity] for name in (first, last))
        assert not isinstance(one, list) and not isinstance(other, list)
        return combine(one, other)

    return compute


@dataclasses.dataclass(frozen=True)
class Study:
    """A claim and the experiment that tests it.

    Attributes:
      name: name on the command line.
      claim: the claim, in a sentence of our own.
      source: who makes the claim, with section or figure.
      arms: conditions; the first is the baseline of paired differences.
      quantity: name of the main quantity in `Measured`.
      label: name and unit of the main quantity.
      measure: function from the folder of a finished run to `Measured`.
      falsifier: result that would contradict the claim.
      is_rate: whether the quantity is a percentage of the test images, which has a sampling error.
      curves: quantities along an axis, drawn instead of the main quantity.
      also: further quantities of `Measured`, columns of the table, with their labels.
      derived: numbers computed from all arms.
      stepwise: take paired differences from the arm before, instead of from the first.
      num_seeds: number of seeds by default.
      together: number of seeds, from a multiple of it, whose runs one measurement may need.
      seconds: seconds of one run and its measurement on two cores, for the plan.
      rates: learning rates, of which each arm takes the best on a validation split; () keeps those
        of the arms' configs.
      trial_epochs: epochs for which each rate is tried; None is all of the arm's.
      figure: function that draws the content of `study.json` into a file, instead of the usual
        figure.
      comment: what the reader should know to read the result.
    """

    name: str
    claim: str
    source: str
    arms: tuple[Arm, ...]
    quantity: str
    label: str
    measure: Callable[[Path], Measured]
    falsifier: str
    is_rate: bool = True
    curves: tuple[Curve, ...] = ()
    also: Mapping[str, str] = dataclasses.field(default_factory=dict)
    derived: tuple[Derived, ...] = ()
    stepwise: bool = False
    num_seeds: int = 5
    together: int = 1
    seconds: float = 60.0
    rates: tuple[float, ...] = ()
    trial_epochs: int | None = None
    figure: Callable[[Mapping[str, Any], Path], None] | None = None
    comment: str = ""

    def rates_of(self, arm: Arm) -> tuple[float, ...]:
        """Return the learning rates that an arm chooses from; none if it keeps its config's."""
        return () if arm.fit else arm.rates or self.rates

    @property
    def size(self) -> str:
        """Describe the size of the study, for the list of all."""
        count, num_runs = len(self.arms), len({arm.config for arm in self.arms}) * self.num_seeds
        minutes = self.seconds * num_runs / 60
        arms = f"{count} arm{'s' if count != 1 else ''}"
        return f"{arms}, {self.num_seeds} seeds, {minutes:.0f} min on two cores"

    def seeds_to_train(self, seeds: Iterable[int]) -> list[int]:
        """Return the seeds whose runs the measurements of some seeds need."""
        size = self.together
        return sorted({seed - seed % size + i for seed in seeds for i in range(size)})
