"""The pixels that each unit depends on: one interval for each axis; `trace.py` has an example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

EMPTY = (1 << 30, -1)  # first and last position of a unit that depends on padding alone


@dataclasses.dataclass(frozen=True)
class Interval:
    """The positions along one axis of the source that each unit of an array depends on.

    Attributes:
      axis: axis of the array along which the interval varies, or None if it is the same for all.
      first: first position, for each index along `axis`; a single entry if `axis` is None.
      last: last position, included; same shape as `first`.
    """

    axis: int | None
    first: Int[np.ndarray, " units"]
    last: Int[np.ndarray, " units"]

    @property
    def size(self) -> int:
        """Return the number of positions in the largest interval; borders make others smaller."""
        return int((self.last - self.first).max()) + 1

    @property
    def stride(self) -> int:
        """Return the largest distance between the intervals of two neighbouring units."""
        return int(np.diff(self.first).max(initial=1))

    def gather(self, axis: int, taps: Int[np.ndarray, "units taps"]) -> Interval:
        """Return the interval of an array whose units each combine several units of this one.

        Args:
          axis: axis of this array along which units are combined.
          taps: indices along `axis` that each new unit combines; -1 stands for padding.
        """
        if self.axis != axis:
            return self
        first = np.append(self.first, EMPTY[0])[taps].min(1)
        last = np.append(self.last, EMPTY[1])[taps].max(1)
        return Interval(axis, first, last)

    def rename_axes(self, axes: Mapping[int, int]) -> Interval:
        """Return the interval after the axes of the array change.

        Args:
          axes: new index of each axis that is kept, by its old index. All other axes are merged:
            every unit then depends on the union of their intervals.
        """
        if self.axis is not None and self.axis in axes:
            return dataclasses.replace(self, axis=axes[self.axis])
        return Interval(None, self.first.min(keepdims=True), self.last.max(keepdims=True))

    def union(self, other: Interval) -> Interval:
        """Return, unit by unit, the smallest interval that contains this one and `other`."""
        a, b = self, other
        if None not in (a.axis, b.axis) and a.axis != b.axis:
            a, b = a.rename_axes({}), b.rename_axes({})
        axis = a.axis if b.axis is None else b.axis
        return Interval(axis, np.minimum(a.first, b.first), np.maximum(a.last, b.last))


Dependence = tuple[Interval, ...]  # one interval for each axis of the source


def identity(shape: Sequence[int]) -> Dependence:
    """Return the dependence of an array on itself: every unit depends on itself alone."""
    return tuple(Interval(axis, np.arange(n), np.arange(n)) for axis, n in enumerate(shape))


def compose(earlier: Dependence, later: Dependence) -> Dependence:
    """Chain two layers: return the dependence of the second on the source of the first.

    Args:
      earlier: dependence of the first layer on the source.
      later: dependence of the second layer on the first.
    """
    intervals = []
    for interval in earlier:
        if interval.axis is not None:
            via = later[interval.axis]
            units = [slice(a, b + 1) for a, b in zip(via.first, via.last, strict=True)]
            first = [interval.first[s].min(initial=EMPTY[0]) for s in units]
            last = [interval.last[s].max(initial=EMPTY[1]) for s in units]
            interval = Interval(via.axis, np.array(first), np.array(last))
        intervals.append(interval)
    return tuple(intervals)
