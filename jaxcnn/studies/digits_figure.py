"""Draw figures 9 and 10 of 1998 as the paper does, with our bars beside the printed ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxcnn import report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT = 0.38  # of a bar; two stand beside each other in a row of height 1


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw the errors and rejections of `study.json`, and those in print, into a file."""
    baseline, *others = record["arms"].items()
    arms = dict([*others[:-1], baseline, *others[-1:]])  # LeNet-5 is near the end in the paper
    figure = report.make_figure(13, 0.42 * len(arms) + 1.6)
    errors, rejections = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw(
        errors,
        {name: arm["values"] for name, arm in arms.items()},
        {name: arm["published"] for name, arm in arms.items()},
        record["label"],
    )
    _draw(
        rejections,
        {name: arm["also"]["rejection"]["values"] for name, arm in arms.items()},
        {name: arm["also"]["rejection"].get("published") for name, arm in arms.items()},
        "rejected for an error of 0.5 % (%)",
        only_published=True,
    )
    errors.set_yticks(range(len(arms)), list(arms))
    errors.set_ylim(len(arms) - 0.4, -0.6)
    figure.legend(*errors.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    report.save_figure(figure, path)


def _draw(
    axes: Axes,
    values: Mapping[str, list[float]],
    published: Mapping[str, Any],
    label: str,
    *,
    only_published: bool = False,
) -> None:
    rows = [(row, name) for row, name in enumerate(values) if published[name] or not only_published]
    printed = [(row, published[name]["value"]) for row, name in rows if published[name]]
    means = [float(np.mean(values[name])) for _, name in rows]
    centers = np.array([row for row, _ in rows]) + HEIGHT / 2
    if printed:
        at = np.array([row for row, _ in printed]) - HEIGHT / 2
        bars = axes.barh(at, [v for _, v in printed], HEIGHT, color="0.65", label="in print")
        axes.bar_label(bars, fmt="%g", padding=3, fontsize=8, color="0.35")
    axes.barh(centers, means, HEIGHT, color="C0", label="ours, the mean")
    for center, mean, (row, name) in zip(centers, means, rows, strict=True):
        each, label_of_first = values[name], None if row else "a seed"
        axes.plot(
            each, [center] * len(each), ".", color="black", markersize=3, label=label_of_first
        )
        place = (max(each), center)
        axes.annotate(f"{mean:.2f}", place, (4, 0), textcoords="offset points", va="center", size=8)
    axes.set(xlabel=label)
    axes.margins(x=0.08)
    axes.grid(alpha=0.3, axis="x")
