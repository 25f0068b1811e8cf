"""A figure of the time of a step over the size of its batch or of its images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.report import make_figure, save_figure

LABELS = {"batch_size": "images in a batch", "image_size": "height and width of an image (pixels)"}


def save_growth(comparisons: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw milliseconds per image, for each side, over the batch size or the image size.

    Args:
      comparisons: results of `compare` for each size, each with its `figures`.
      path: file to write.
    """
    first = comparisons[0]
    (size,) = (name for name in LABELS if len({it[name] for it in comparisons}) > 1)
    figure = make_figure(6.5, 4.2)
    axes = figure.subplots()
    for side in first["figures"]:
        points = [
            (it[size], it["figures"][side]["step_ms"] / it["images_per_step"])
            for it in comparisons
            if side in it["figures"]
        ]
        axes.plot(*zip(*points, strict=True), "o-", label=side)
    ticks = [it[size] for it in comparisons]
    axes.set(xscale="log", xlabel=LABELS[size], ylabel="time of an image (ms)")
    axes.set_ylim(bottom=0)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    axes.set_title(f"{first['network']}, {first['what']}, {first['dtype']}: {first['device']}")
    save_figure(figure, path)
