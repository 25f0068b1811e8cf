"""Draw the architecture of a network in the manner of the papers' figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxcnn.report import save_figure
from jaxcnn.summary.summarize import Layer, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTION = (
    "To scale: the sides of a block are proportional to the square roots of its maps' height and\n"
    "width; at a quarter of that scale, its depth to that of the number of maps, and the height\n"
    "of a bar to that of its units. An orange frame is the window of the next layer."
)
# Lengths are in inches, font sizes in points.
TALLEST, BAR_WIDTH, GAP = 2.4, 0.14, 0.34
RECEDING = (0.8, 0.6)  # direction of depth in the oblique projection
FONT_SIZE, LETTER, LINE = 10, 0.087, 0.18  # LETTER: upper bound on width; LINE: line spacing
FRONT, TOP, SIDE, EDGE, WINDOW = "#e3ecf7", "#c9d9ee", "#aec5e3", "#34507a", "#d9581e"


def save_architecture(title: str, summary: Summary, path: Path) -> None:
    """Draw each layer as a block of maps or a bar of units, with its operation below.

    A layer that changes no size and has no parameters is not drawn as a block; its operation is
    written above that of the next layer.

    Args:
      title: title of the picture.
      summary: layers of the network.
      path: PNG file to write.
    """
    from matplotlib.figure import Figure

    layers = [Layer("input", "", None, summary.input_shape, 0, 0, 0, 0, (1, 1))]
    operations, waiting = [""], []
    for layer in summary.layers:
        waiting.append(layer.operation.replace(", ", "\n"))
        if layer.parameters or layer.output_shape != layers[-1].output_shape:
            layers.append(layer)
            operations.append("\n".join(waiting))
            waiting = []

    scale = TALLEST / max(_sides(layer, 1)[1] for layer in layers)
    sides = [_sides(layer, scale) for layer in layers]
    labels = [f"{layer.name}\n{_sizes(layer)}" for layer in layers]
    blocks, middles = _columns(sides, labels, operations)
    width = blocks[-1] + max(_breadth(*sides[-1]), _text_width(labels[-1])) + GAP
    width = max(width, _text_width(CAPTION) + 2 * GAP)
    top = max(height / 2 + RECEDING[1] * depth for _, height, depth in sides) + 3 * LINE
    lines = max(operation.count("\n") + 1 for operation in operations)
    bottom = -TALLEST / 2 - 2 * LINE
    caption = bottom - (lines + 1) * LINE

    figure = Figure(figsize=(width, top + 3 * LINE - caption + 4 * LINE))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(caption - 4 * LINE, top + 3 * LINE))
    axes.axis("off")
    axes.text(width / 2, top + 2 * LINE, title, ha="center", va="top", fontsize=13, weight="bold")
    axes.text(
        width / 2, caption, CAPTION, ha="center", va="top", fontsize=FONT_SIZE, style="italic"
    )
    for x, size, label in zip(blocks, sides, labels, strict=True):
        _draw_block(axes, x, *size)
        y = size[1] / 2 + RECEDING[1] * size[2] + 0.08
        middle = x + _breadth(*size) / 2
        axes.text(middle, y, label, ha="center", va="bottom", fontsize=FONT_SIZE)
    for i, operation in enumerate(operations[1:], start=1):
        axes.text(middles[i], bottom, operation, ha="center", va="top", fontsize=FONT_SIZE)
        start, end = blocks[i - 1] + _breadth(*sides[i - 1]), blocks[i]
        _draw_step(axes, layers[i], layers[i - 1], blocks[i - 1], sides[i - 1], start, end)
    save_figure(figure, path)


def _is_bar(layer: Layer) -> bool:
    return math.prod(layer.output_shape[:-1]) == 1


def _sides(layer: Layer, scale: float) -> tuple[float, float, float]:
    """Return the width, height and depth of a layer's block."""
    roots = [math.sqrt(n) for n in layer.output_shape]
    if _is_bar(layer):
        return BAR_WIDTH, roots[-1] / 4 * scale, 0.0
    height, width, maps = roots
    return width * scale, height * scale, maps / 4 * scale


def _breadth(width: float, height: float, depth: float) -> float:
    return width + RECEDING[0] * depth


def _sizes(layer: Layer) -> str:
    return f"{layer.units:,}" if _is_bar(layer) else "×".join(map(str, layer.output_shape))


def _text_width(text: str) -> float:
    return LETTER * max(map(len, text.split("\n")))


def _columns(
    sides: Sequence[tuple[float, float, float]], labels: Sequence[str], operations: Sequence[str]
) -> tuple[list[float], list[float]]:
    """Return the left end of each block and the middle of the gap before it.

    The columns are wide enough that no two texts overlap.
    """
    blocks: list[float] = []
    middles: list[float] = []
    end = GAP
    for i, (size, label, operation) in enumerate(zip(sides, labels, operations, strict=True)):
        breadth = _breadth(*size)
        column = max(breadth, _text_width(label))
        begin = end + (GAP if i else 0)
        if i > 1:
            apart = (_text_width(operation) + _text_width(operations[i - 1])) / 2 + LETTER
            begin = max(begin, 2 * (middles[-1] + apart) - end)
        middles.append((end + begin) / 2)
        blocks.append(begin + (column - breadth) / 2)
        end = begin + column
    return blocks, middles


def _draw_block(axes: Axes, x: float, width: float, height: float, depth: float) -> None:
    from matplotlib.patches import Polygon

    low, high, (dx, dy) = -height / 2, height / 2, (RECEDING[0] * depth, RECEDING[1] * depth)
    right = x + width
    faces = {FRONT: [(x, low), (right, low), (right, high), (x, high)]}
    if depth:
        faces[TOP] = [(x, high), (right, high), (right + dx, high + dy), (x + dx, high + dy)]
        faces[SIDE] = [(right, low), (right + dx, low + dy), (right + dx, high + dy), (right, high)]
    for colour, corners in faces.items():
        axes.add_patch(Polygon(corners, facecolor=colour, edgecolor=EDGE, linewidth=0.8))


def _draw_step(
    axes: Axes,
    layer: Layer,
    before: Layer,
    x: float,
    sides: tuple[float, float, float],
    start: float,
    end: float,
) -> None:
    """Draw the window of `layer` on the block before it at `x`, or an arrow if it has none."""
    from matplotlib.patches import Rectangle

    if layer.window is None or _is_bar(before):
        arrow = {"arrowstyle": "->", "color": EDGE, "linewidth": 0.8}
        axes.annotate("", (end - 0.04, 0), (start + 0.04, 0), arrowprops=arrow)
        return
    width, height, _ = sides
    tall = height * layer.window[0] / before.output_shape[0]
    wide = width * layer.window[1] / before.output_shape[1]
    left, low = x + (width - wide) * 0.8, -tall / 2
    axes.add_patch(
        Rectangle((left, low), wide, tall, fill=False, edgecolor=WINDOW, linewidth=1, zorder=3)
    )
    for corner in ((left + wide, low), (left + wide, low + tall)):
        axes.plot(*zip(corner, (end, 0), strict=True), color=WINDOW, linewidth=0.8, zorder=3)
