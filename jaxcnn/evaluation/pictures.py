"""An evaluation as pictures: errors, kernels, feature maps, accuracy under shifts.

Each function has an argument `subject`, the first line of the title: the run and the data.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxcnn.report import caption, drawable, make_figure, save_figure

MAPS_SHOWN = 16  # of each layer


def save_confusion(
    confusion: Int[np.ndarray, "classes classes"],
    class_names: Sequence[str],
    path: Path,
    *,
    subject: str = "",
) -> None:
    """Draw the confusion matrix; colour marks errors, and the diagonal stays white."""
    size = 2 + 0.55 * len(class_names)
    figure = make_figure(size, size)
    axes = figure.subplots()
    errors = confusion.copy()
    np.fill_diagonal(errors, 0)
    strongest = max(1, 1.5 * errors.max())  # numbers stay legible on a pale cell
    axes.imshow(np.ma.masked_equal(errors, 0), cmap="Reds", vmin=0, vmax=strongest)
    for (i, j), count in np.ndenumerate(confusion):
        if count:
            axes.text(
                j, i, f"{count}", ha="center", va="center", weight="bold" if i == j else "normal"
            )
    ticks = range(len(class_names))
    long_names = any(len(name) > 2 for name in class_names)
    labels = [label(name, 24) for name in class_names]
    axes.set_xticks(ticks, labels, rotation=45 if long_names else 0)
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="answer", ylabel="true class")
    title = titled(subject, f"{errors.sum():,} errors in {confusion.sum():,} images")
    axes.set_title(title, fontsize=11)
    save_figure(figure, path)


def save_mistakes(
    images: UInt8[np.ndarray, "examples height width channels"] | Sequence[np.ndarray],
    labels: Int[np.ndarray, " examples"],
    probabilities: Float[np.ndarray, "examples classes"],
    class_names: Sequence[str],
    path: Path,
    *,
    files: Sequence[str] = (),
    count: int = 32,
    subject: str = "",
) -> None:
    """Draw the wrong answers with the highest probability, as a grid of images.

    Args:
      images: raw images.
      labels: labels of the images.
      probabilities: probabilities that the network gives to the classes.
      class_names: name of each label.
      path: file to write.
      files: file of each image, where the dataset has files.
      count: number of wrong answers to draw.
      subject: the run and the data.
    """
    predictions = probabilities.argmax(-1)
    confidence = probabilities.max(-1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    columns = min(8, max(1, len(worst)))
    rows = -(-len(worst) // columns)
    figure = make_figure(max(6.4, 1.3 * columns), 0.7 + 1.75 * rows)
    which = f"{len(wrong):,} wrong answers in {len(labels):,}"
    if len(worst) < len(wrong):
        which = f"The {len(worst)} most confident of {which}"
    form = ": probability, true class, image" if rows else ""
    figure.suptitle(titled(subject, which + form), fontsize=11)
    for cell, i in enumerate(worst):
        axes = figure.add_subplot(rows, columns, cell + 1)
        axes.axis("off")
        image = images[i]
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
        name = caption(os.path.basename(files[i]), 14) if files else f"#{i}"
        axes.set_title(
            f"{label(class_names[predictions[i]], 11)} ({confidence[i]:.1%})\n"
            f"is {label(class_names[labels[i]], 11)}\n{name}",
            fontsize=8,
        )
    save_figure(figure, path)


def save_images(
    images: Sequence[UInt8[np.ndarray, "_height _width _channels"]],
    titles: Sequence[str],
    path: Path,
    *,
    subject: str = "",
) -> None:
    """Draw images of any sizes as a contact sheet, each below its title."""
    columns = min(8, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    tallest = max((image.shape[0] / image.shape[1] for image in images), default=1)
    figure = make_figure(max(4.5, 1.5 * columns), 0.3 + (0.5 + 1.4 * min(tallest, 2)) * rows)
    figure.suptitle(caption(subject, 60), fontsize=10)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, image, title in zip(grid, images, titles, strict=False):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8)
    save_figure(figure, path)


def label(name: str, length: int) -> str:
    """Return the start of a name for a figure, at most `length` letters."""
    return drawable(name if len(name) <= length else f"{name[: length - 1]}…")


def save_filters(
    kernel: Float[np.ndarray, "height width channels features"],
    layer: str,
    path: Path,
    *,
    subject: str = "",
) -> None:
    """Draw the kernels of a layer as small images, in colour if they have three channels.

    References:
      Krizhevsky et al. 2012, figure 3.
    """
    tiles = np.moveaxis(kernel, -1, 0)
    if tiles.shape[-1] != 3:
        tiles = tiles.mean(-1, keepdims=True)
    largest = np.abs(tiles).max(axis=(1, 2, 3), keepdims=True)
    tiles = 0.5 + 0.4 * tiles / np.where(
        largest > 0, largest, 1
    )  # darker than the grid between them
    grid = _grid(tiles, math.ceil(math.sqrt(len(tiles))), blank=1)
    height, width, channels, features = kernel.shape
    figure = make_figure(6, 0.8 + 6 * grid.shape[0] / grid.shape[1])
    axes = figure.subplots()
    axes.imshow(grid, cmap="gray", vmin=0, vmax=1)
    axes.axis("off")
    text = (
        f"The {features} kernels of {layer}, {height}x{width}x{channels}\n"
        "mid-grey is 0, brighter positive; each scaled by its own largest weight"
    )
    axes.set_title(titled(subject, text), fontsize=11)
    save_figure(figure, path)


def save_feature_maps(
    image: UInt8[np.ndarray, "height width channels"],
    title: str,
    maps: Mapping[str, Float[np.ndarray, "_height _width _maps"]],
    path: Path,
    *,
    subject: str = "",
) -> None:
    """Draw an image and, in a row for each layer, the first feature maps of the layer.

    Args:
      image: raw image.
      title: description of the image.
      maps: feature maps of each layer, by its name.
      path: file to write.
      subject: the run and the data.
    """
    figure = make_figure(14, 0.8 + 0.9 * max(2, len(maps)))
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
    text = (
        f"Each layer's maps (the first {MAPS_SHOWN}) before its nonlinearity: red is positive, "
        "blue negative, white 0; a row has one scale"
    )
    right.suptitle(titled(subject, text), fontsize=10)
    save_figure(figure, path)


def save_shifts(
    accuracies: Sequence[float], comment: str, path: Path, *, subject: str = ""
) -> None:
    """Draw the result of `shift_accuracies`; the comment describes the images."""
    figure = make_figure(6.5, 4.2)
    axes = figure.subplots()
    percent = 100 * np.array(accuracies)
    axes.plot(percent, "C1o-")
    for pixels, value in enumerate(percent):
        axes.annotate(f"{value:.1f}", (pixels, value), (0, 6), textcoords="offset points")
    axes.set(xlabel="shift (pixels)", ylabel="accuracy (%)", xticks=range(len(accuracies)))
    axes.margins(x=0.08, y=0.12)
    axes.grid(alpha=0.3)
    text = f"Mean over shifts up, down, left and right, in one view:\n{comment}"
    axes.set_title(titled(subject, text), fontsize=10)
    save_figure(figure, path)


def titled(subject: str, text: str) -> str:
    """Return the title of a picture, with its subject as the first line."""
    return f"{caption(subject, 64)}\n{text}" if subject else text


def _grid(
    tiles: Float[np.ndarray, "tiles height width channels"], columns: int, *, blank: float
) -> Float[np.ndarray, "all_height all_width channels"]:
    """Arrange tiles in a grid, with a pixel of `blank` between them."""
    rows = -(-len(tiles) // columns)
    sides = ((0, rows * columns - len(tiles)), (0, 1), (0, 1), (0, 0))
    framed = np.pad(tiles, sides, constant_values=blank)
    _, height, width, channels = framed.shape
    framed = framed.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return framed.reshape(rows * height, columns * width, channels)[:-1, :-1]
