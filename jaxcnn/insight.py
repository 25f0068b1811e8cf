"""Inside a trained network: its first kernels, its maps of one image, what a shifted image does."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.experiment import Experiment
from jaxcnn.report import make_figure, save_figure, shortened
from jaxcnn.step import TrainState

MAPS_SHOWN = 16  # of each layer
FEW_SHIFTED, LARGE = 1000, 28  # so many images if a network sees more than 28 x 28 pixels


def draw(
    experiment: Experiment,
    state: TrainState,
    images: np.ndarray | Sequence[np.ndarray],
    labels: Int[np.ndarray, " examples"],
    image: int,
    answer: str,
    workdir: Path,
) -> dict[str, Any]:
    """Writes `filters.png`, `feature_maps.png` and `shifts.png`; returns what is for JSON in them.

    A network without maps has no picture of them, and one without kernels none of filters.

    Args:
      experiment: whose network it is.
      state: what was trained.
      images: the test set, as stored.
      labels: of the images.
      image: of the test set, whose maps are drawn.
      answer: the class that it was taken for.
      workdir: the run's folder.
    """
    inputs = experiment.to_input(images[image][None])
    maps = {name: np.asarray(x[0], np.float32) for name, x in feature_maps(state, inputs).items()}
    layers = [name for name in maps if "kernel" in state.eval_params.get(name, {})]
    if layers:
        kernel = np.asarray(state.eval_params[layers[0]]["kernel"])
        save_filters(kernel, layers[0], workdir / "filters.png")
    if maps:
        class_names = experiment.dataset.class_names
        truth = shortened(class_names[labels[image]], 16)
        title = f"test image {image}\nclass: {truth}\nanswer: {shortened(answer, 16)}"
        save_feature_maps(images[image], title, maps, workdir / "feature_maps.png")

    few = max(inputs.shape[1:3]) > LARGE and len(labels) > FEW_SHIFTED
    count = FEW_SHIFTED if few else len(labels)
    # By chance: some sets come class by class, others go round their classes.
    rows = np.sort(np.random.default_rng(0).choice(len(labels), count, replace=False)).tolist()
    predict = functools.partial(experiment.predict_one_view, state)
    shifted = np.stack([images[row] for row in rows])  # a stream decodes them one by one
    accuracies = shift_accuracies(predict, shifted, labels[rows])
    fill = "on a background of 0" if inputs.shape[-1] == 1 else "the edge repeated"
    which = f"{count:,} of the {len(labels):,}" if few else f"all {count:,}"
    comment = f"{which} test images, {fill}"
    save_shifts(accuracies, comment, workdir / "shifts.png")
    return {"shift_accuracies": accuracies, "num_shifted_examples": count}


def feature_maps(
    state: TrainState, images: Float[Array, "batch height width channels"]
) -> dict[str, Float[Array, "batch height width maps"]]:
    """What each layer puts out, before its nonlinearity, in the order of the network.

    Layers are the network's submodules; those that put out units, or maps of 1x1, are left out.
    """

    def is_layer(module: nn.Module, method: str) -> bool:
        return module.name is not None and method == "__call__"

    # Not jitted: a jitted function would return the layers in the order of their names.
    _, variables = state.apply_fn(
        {"params": state.eval_params},
        images,
        train=False,
        capture_intermediates=is_layer,
        mutable="intermediates",
    )
    calls = variables["intermediates"].items()
    outputs = {name: call["__call__"][0] for name, call in calls}
    return {name: x for name, x in outputs.items() if x.ndim == 4 and x.shape[1:3] != (1, 1)}


def shift(
    images: UInt8[np.ndarray, "examples height width channels"], down: int, right: int
) -> UInt8[np.ndarray, "examples height width channels"]:
    """Moves images by whole pixels.

    What comes in is 0, the background of digits, if they are grey; in colour, the edge's pixels.
    """
    _, height, width, channels = images.shape
    pad = max(abs(down), abs(right))
    sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(images, sides, mode="constant" if channels == 1 else "edge")
    top, left = pad - down, pad - right
    return padded[:, top : top + height, left : left + width]


def shift_accuracies(
    predict: Callable[[np.ndarray], np.ndarray],
    images: UInt8[np.ndarray, "examples height width channels"],
    labels: Int[np.ndarray, " examples"],
    *,
    max_pixels: int = 4,
) -> list[float]:
    """Accuracy when images are shifted by 0, 1, ... pixels: the mean of up, down, left and right.

    Args:
      predict: stored images -> [examples, classes], the larger the likelier.
      images: as stored.
      labels: of the images.
      max_pixels: the largest shift.
    """
    accuracies = []
    for pixels in range(max_pixels + 1):
        moves = {(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)}  # a single one of 0 pixels
        right = [predict(shift(images, *move)).argmax(-1) == labels for move in moves]
        accuracies.append(float(np.mean(right)))
    return accuracies


def save_filters(
    kernel: Float[np.ndarray, "height width channels features"], layer: str, path: Path
) -> None:
    """The kernels of a layer as small images, in colour if they see three channels.

    References:
      Krizhevsky et al. 2012, figure 3.
    """
    tiles = np.moveaxis(kernel, -1, 0)
    if tiles.shape[-1] != 3:
        tiles = tiles.mean(-1, keepdims=True)
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.4 * tiles / np.where(largest > 0, largest, 1)  # darker than what is between
    grid = _grid(tiles, math.ceil(math.sqrt(len(tiles))), blank=1)
    height, width, channels, features = kernel.shape
    figure = make_figure(6, 0.8 + 6 * grid.shape[0] / grid.shape[1])
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
    axes.set_title(
        f"The {features} kernels of {layer}, {height}x{width}x{channels}\n"
        "mid-grey is 0, brighter positive; each scaled by its own largest weight",
        fontsize=11,
    )
    save_figure(figure, path)


def save_feature_maps(
    image: UInt8[np.ndarray, "height width channels"],
    title: str,
    maps: Mapping[str, Float[np.ndarray, "height width maps"]],
    path: Path,
) -> None:
    """An image, and what it becomes layer by layer: a row for each, with its first maps.

    Args:
      image: as stored.
      title: what it is, and what the network took it for.
      maps: of each layer, by its name.
      path: of the picture.
    """
    figure = make_figure(14, 0.6 + 0.9 * max(2, len(maps)))
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 6))[0]
    axes = left.subplots()
    axes.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray_r")
    axes.axis("off")
    axes.set_title(title, fontsize=10)
    rows = right.subplots(len(maps), squeeze=False)[:, 0]
    for axes, (name, x) in zip(rows, maps.items(), strict=True):
        height, width, num_maps = x.shape
        tiles = np.full((MAPS_SHOWN, height, width, 1), np.nan)
        tiles[:num_maps, ..., 0] = np.moveaxis(x, -1, 0)[:MAPS_SHOWN]
        largest = np.nanmax(np.abs(tiles)) or 1
        axes.imshow(_grid(tiles, MAPS_SHOWN, blank=np.nan), "RdBu_r", vmin=-largest, vmax=largest)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_ylabel(
            f"{name}\n{height}x{width}x{num_maps}", rotation=0, ha="right", va="center", fontsize=9
        )
    right.suptitle(
        f"Each layer's maps (the first {MAPS_SHOWN}) before its nonlinearity: red is positive, "
        "blue negative, white 0; a row has one scale",
        fontsize=10,
    )
    save_figure(figure, path)


def save_shifts(accuracies: Sequence[float], comment: str, path: Path) -> None:
    """Accuracy over the distance, as `shift_accuracies` has it; the comment says of what images."""
    figure = make_figure(6.5, 4.2)
    axes = figure.subplots()
    percent = 100 * np.array(accuracies)
    axes.plot(percent, "C1o-")
    for pixels, value in enumerate(percent):
        axes.annotate(f"{value:.1f}", (pixels, value), (0, 6), textcoords="offset points")
    axes.set(xlabel="shift (pixels)", ylabel="accuracy (%)", xticks=range(len(accuracies)))
    axes.margins(x=0.08, y=0.12)
    axes.grid(alpha=0.3)
    title = f"Shifted up, down, left and right, the mean, in one view:\n{comment}"
    axes.set_title(title, fontsize=10)
    save_figure(figure, path)


def _grid(
    tiles: Float[np.ndarray, "tiles height width channels"], columns: int, *, blank: float
) -> Float[np.ndarray, "all_height all_width channels"]:
    """Tiles beside and below one another, with a pixel of `blank` between them."""
    rows = -(-len(tiles) // columns)
    sides = ((0, rows * columns - len(tiles)), (0, 1), (0, 1), (0, 0))
    framed = np.pad(tiles, sides, constant_values=blank)
    _, height, width, channels = framed.shape
    framed = framed.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return framed.reshape(rows * height, columns * width, channels)[:-1, :-1]
