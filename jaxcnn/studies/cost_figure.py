"""Draw the study of costs: savings, figures 11 and 12 beside our counts, and paddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxcnn import report
from jaxcnn.studies.cost_1998 import BARS
from jaxcnn.studies.cost_numbers import PADDINGS, first_stages, outputs_entered, sizes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

WITHOUT, WITH, PRINTED = "0.65", "C0", "C1"
BAR = 0.38  # height of a bar; two stand beside each other in a row of height 1


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw the claims of `study.json` and the published bars into a file."""
    figure = report.make_figure(9, 12)
    figure.set_layout_engine("constrained", w_pad=0.1)
    parts = figure.subfigures(3, 1, height_ratios=(4, 5.2, 3.8), squeeze=False)
    saved, printed, paddings = parts.ravel()
    _draw_saved(saved.subplots(), record)
    _draw_printed(printed)
    _draw_paddings(paddings)
    report.save_figure(figure, path)


def _draw_saved(axes: Axes, record: Mapping[str, Any]) -> None:
    """Draw the numbers of the claims about pooling and sharing in pairs."""
    pairs = {
        name: {label.split()[0]: number for label, number in arm["numbers"].items()}
        for name, arm in record["arms"].items()
        if {label.split()[0] for label in arm["numbers"]} == {"without", "with"}
    }
    axes.set_visible(bool(pairs))  # of chosen claims, none may be about pooling or sharing
    without, pooled = ([pair[key] for pair in pairs.values()] for key in ("without", "with"))
    _draw_bars(axes, -1, without, WITHOUT, "without pooling, or sharing")
    _draw_bars(axes, 1, pooled, WITH, "with pooling, or sharing")
    for row, name in enumerate(pairs):
        axes.annotate(
            f"×{record['arms'][name]['mean']:.2f}",
            (0.99, row),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=9,
            weight="bold",
        )
    _name_rows(
        axes,
        list(pairs),
        "LeNet-5 without and with pooling or sharing (log scale); right: the ratio",
    )
    axes.set_xlim(8, 3e9)
    axes.legend(loc="upper right", bbox_to_anchor=(0.93, 0.62), frameon=False, fontsize=9)


def _draw_printed(figure: SubFigure) -> None:
    """Draw the bars of figures 11 and 12 that we can count, beside our numbers."""
    bars = {bar: bar.counts() for bar in BARS if bar.counts}
    left, right = figure.subplots(1, 2, sharey=True)
    columns = (
        (left, "figure11", "connections", "Operations (figure 11 of 1998)"),
        (right, "figure12", "parameters", "Variables (figure 12 of 1998)"),
    )
    for axes, theirs, ours, title in columns:
        _draw_bars(axes, -1, [1000 * getattr(bar, theirs) for bar in bars], PRINTED, "printed")
        _draw_bars(axes, 1, [getattr(counts, ours) for counts in bars.values()], WITH, "ours")
        _name_rows(axes, [bar.method for bar in bars], title)
        axes.set_xlim(1e3, 1e9)
    right.legend(loc="lower right", frameon=False, fontsize=9)


def _draw_paddings(figure: SubFigure) -> None:
    """Draw how many outputs of C1 each pixel enters, with each padding."""
    all_axes = figure.subplots(1, len(PADDINGS))
    figure.suptitle("Outputs of C1 that each of the 28x28 pixels enters (5x5 window)", fontsize=11)
    for axes, padding in zip(all_axes, PADDINGS, strict=True):
        (window, *_) = first_stages(padding)
        entered = outputs_entered([window])
        (side,) = sizes([window])
        image = axes.imshow(np.outer(entered, entered), vmin=0, vmax=25, cmap="viridis")
        corner, centre = entered[0] ** 2, entered[len(entered) // 2] ** 2
        axes.set_title(
            f"{padding}: {side}x{side} maps\ncorner {corner}, centre {centre}", fontsize=10
        )
        axes.set(xticks=(0, 27), yticks=(0, 27))
    figure.colorbar(image, ax=all_axes, label="outputs", shrink=0.8)


def _draw_bars(
    axes: Axes, side: Literal[-1, 1], values: Sequence[float], color: str, label: str
) -> None:
    """Draw a bar in each row, above (-1) or below (1) its middle, with its value."""
    rows = np.arange(len(values)) + side * BAR / 2
    bars = axes.barh(rows, values, BAR, color=color, label=label)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3, fontsize=8)


def _name_rows(axes: Axes, names: Sequence[str], title: str) -> None:
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3, axis="x")
    axes.set_axisbelow(True)
