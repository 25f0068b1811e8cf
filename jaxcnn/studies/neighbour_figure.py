"""Draw test images beside their nearest training images, as figure 4 of Krizhevsky et al. 2012."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from jaxcnn import report
from jaxcnn.studies.image_measures import dataset_of
from jaxcnn.studies.neighbour_measures import NEIGHBOURS, Space, nearest_images
from jaxcnn.workdir.folder import read_config

PANELS: dict[Space, str] = {"pixels": "in pixels", "features": "in the last hidden layer"}
WRONG = (214, 39, 40)  # red
GAP, FRAME = 1, 2  # pixels around an image


def save_neighbours(record: Mapping[str, Any], path: Path) -> None:
    """Draw the first test image of each class and its nearest training images into a file.

    Args:
      record: content of `study.json`; the network is that of its first run.
      path: file to write.
    """
    run = Path(next(iter(record["runs"].values()))[0])
    names, queries, found = _nearest(run, (run / "result.json").read_text())
    figure = report.make_figure(10, 1.2 + 0.6 * len(names))
    trial = ", a quick trial of two epochs" if record["quick"] else ""
    figure.suptitle(
        f"The first test image of each class, and its {NEIGHBOURS} nearest training images\n"
        f"(red: of another class; seed {record['seeds'][0]}{trial})",
        fontsize=11,
    )
    panels = figure.subplots(1, 1 + len(found), width_ratios=(1, *(NEIGHBOURS for _ in found)))
    panels[0].imshow(sheet(queries[:, None], np.zeros((len(names), 1), bool)))
    panels[0].set_title("test image", fontsize=10)
    height = queries.shape[1] + 2 * (GAP + FRAME)
    panels[0].set_yticks([height * (row + 0.5) for row in range(len(names))], names)
    for axes, (title, images, is_wrong) in zip(panels[1:], found, strict=True):
        axes.imshow(sheet(images, is_wrong))
        axes.set_title(f"nearest {title}", fontsize=10)
        axes.set_yticks([])
    for axes in panels:
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    report.save_figure(figure, path)


@functools.lru_cache(1)  # a study draws its figure twice
def _nearest(run: Path, result: str) -> tuple[list[str], np.ndarray, list[Any]]:
    """Return class names, their first test images, and title, neighbours and errors of each panel.

    Args:
      run: folder of a run.
      result: its result; with another one, it is another run.
    """
    data = dataset_of(read_config(run))
    classes = np.unique(data.test_labels)
    rows = np.array([np.flatnonzero(data.test_labels == label)[0] for label in classes])
    queries, panels = data.test_images[rows], []
    for space, title in PANELS.items():
        nearest = nearest_images(run, space, data.train_images, queries)
        is_wrong = data.train_labels[nearest] != classes[:, None]
        panels.append((title, data.train_images[nearest], is_wrong))
    return [report.drawable(data.class_names[label]) for label in classes], queries, panels


def sheet(
    images: UInt8[np.ndarray, "rows columns height width channels"],
    is_wrong: Bool[np.ndarray, "rows columns"],
) -> UInt8[np.ndarray, "all_height all_width 3"]:
    """Arrange images in a grid on white, and frame those that are wrong in red."""
    rows, columns, height, width, _ = images.shape
    height, width = height + 2 * (GAP + FRAME), width + 2 * (GAP + FRAME)
    tiles = np.full((rows, columns, height, width, 3), 255, np.uint8)
    tiles[is_wrong, GAP:-GAP, GAP:-GAP] = WRONG
    inside = slice(GAP + FRAME, -GAP - FRAME)
    tiles[:, :, inside, inside] = images  # grey levels in all three channels
    return tiles.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
