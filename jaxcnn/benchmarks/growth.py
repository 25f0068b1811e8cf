"""Time and memory over the size of a batch or of its images: a figure, and its largest jumps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxcnn.report import make_figure, save_figure

# A size is a cliff if its images take this many times the time of the next smaller size's.
CLIFF = 1.3

LABELS = {"batch_size": "images in a batch", "image_size": "height and width of an image (pixels)"}


def save_growth(comparisons: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw milliseconds per image and peak memory, for each side, over batch size or image size.

    Args:
      comparisons: results of `compare` for each size, each with its `figures`.
      path: file to write.
    """
    first, size = comparisons[0], _varied(comparisons)
    figure = make_figure(6.5, 6.5)
    times, memories = figure.subplots(2, 1, sharex=True)
    for side in first["figures"]:
        of_side = [it for it in comparisons if side in it["figures"]]
        sizes = [it[size] for it in of_side]
        times.plot(sizes, [_milliseconds(it, side) for it in of_side], "o-", label=side)
        memories.plot(sizes, [it["figures"][side]["peak_mib"] for it in of_side], "o-")
    times.set(ylabel="time of an image (ms)")
    memories.set(ylabel="peak memory (MiB)", xlabel=LABELS[size], xscale="log")
    ticks = [it[size] for it in comparisons]
    memories.set_xticks(ticks, [str(tick) for tick in ticks], rotation=45 if len(ticks) > 8 else 0)
    for axes in (times, memories):
        axes.set_ylim(bottom=0)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    times.legend(frameon=False)
    times.set_title(f"{first['network']}, {first['what']}, {first['dtype']}: {first['device']}")
    save_figure(figure, path)


def cliffs(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return a line with jaxcnn's largest jump of time from a size to the next larger one.

    The time is that of an image if batches grow, and of a pixel if images grow.

    Args:
      comparisons: results of `compare` for several sizes, each with its `figures`.
    """
    size = _varied(comparisons)
    unit, power = ("an image", 0) if size == "batch_size" else ("a pixel", 2)
    ordered = sorted(comparisons, key=lambda it: it[size])
    costs = [(it[size], _milliseconds(it, "jaxcnn") / it[size] ** power) for it in ordered]
    jumps = [(b / a, low, high) for (low, a), (high, b) in zip(costs, costs[1:], strict=False)]
    jump, low, high = max(jumps)
    many = sum(each > CLIFF for each, _, _ in jumps)
    verdict = f"{many} above {CLIFF}x" if many else f"no cliff above {CLIFF}x"
    return f"Largest jump of the time of {unit}: {jump:.2f}x, from {low} to {high}; {verdict}."


def _varied(comparisons: Sequence[Mapping[str, Any]]) -> str:
    (size,) = (name for name in LABELS if len({it[name] for it in comparisons}) > 1)
    return size


def _milliseconds(comparison: Mapping[str, Any], side: str) -> float:
    return comparison["figures"][side]["step_ms"] / comparison["images_per_step"]
