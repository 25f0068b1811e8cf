"""An evaluation as diagrams: calibration, rejection, embedding, and what an answer depends on.

Each function has an argument `subject`, as in `pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxcnn.evaluation.metrics import LEGIBLE_CLASSES, TARGET_ERROR, Calibration, rejection_rate
from jaxcnn.evaluation.pictures import label, titled
from jaxcnn.report import make_figure, save_figure


def save_calibration(calibration: Calibration, path: Path, *, subject: str = "") -> None:
    """Draw the reliability diagram: the accuracy of the answers over their confidence.

    References:
      Guo et al. 2017, figure 1.
    """
    figure = make_figure(5.4, 6)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    num_bins = len(calibration.counts)
    edges = np.arange(num_bins) / num_bins
    width = 1 / num_bins
    bars = {"width": width, "align": "edge", "edgecolor": "white"}
    upper.bar(edges, np.nan_to_num(calibration.accuracies), color="C0", label="accuracy", **bars)
    upper.plot(calibration.confidences, calibration.confidences, "C1o", label="mean confidence")
    upper.plot([0, 1], [0, 1], "C1--", linewidth=1)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.03))
    upper.legend(loc="upper left")
    lower.bar(edges, calibration.counts, color="0.6", **bars)
    lower.set(xlabel="confidence (probability of the answer)", ylabel="answers", yscale="symlog")
    text = (
        f"Expected calibration error {calibration.error:.2%}: {calibration.counts.sum():,} answers "
        f"in {num_bins} bins"
    )
    upper.set_title(titled(subject, text), fontsize=10)
    save_figure(figure, path)


def save_rejection(
    errors: Float[np.ndarray, " examples"], path: Path, *, subject: str = ""
) -> None:
    """Draw the result of `rejection_errors`: the error of the accepted answers over the rejected.

    References:
      LeCun et al. 1998, figure 10.
    """
    figure = make_figure(6.5, 4.2)
    axes = figure.subplots()
    percent = 100 * np.arange(len(errors)) / len(errors)
    axes.plot(percent, 100 * errors, "C0")
    rate = rejection_rate(errors)
    axes.axhline(100 * TARGET_ERROR, color="C1", linestyle="--", linewidth=1)
    if rate is not None:
        axes.plot(100 * rate, 100 * TARGET_ERROR, "C1o")
    reached = "is not reached" if rate is None else f"by rejecting {rate:.1%}"
    # To where the curve has fallen to a tenth of the target, or to its end.
    low = np.flatnonzero(errors <= TARGET_ERROR / 10)
    axes.set_xlim(0, max(2.0, 1.2 * percent[low[0]]) if len(low) else 100)
    axes.set_ylim(0)
    axes.set(xlabel="rejected answers (%)", ylabel="error of the accepted answers (%)")
    axes.grid(alpha=0.3)
    text = f"{TARGET_ERROR:.1%} error {reached}; first those whose two best classes are closest"
    axes.set_title(titled(subject, text), fontsize=10)
    save_figure(figure, path)


def save_embedding(
    coordinates: Float[np.ndarray, "examples 2"],
    fractions: Float[np.ndarray, " 2"],
    labels: Int[np.ndarray, " examples"],
    class_names: Sequence[str],
    layer: str,
    path: Path,
    *,
    subject: str = "",
) -> None:
    """Draw the result of `principal_components`, a colour for each class.

    The name of a class stands at the median of its examples; with more than `LEGIBLE_CLASSES`
    classes there are no names.
    """
    figure = make_figure(6.5, 6)
    axes = figure.subplots()
    colors = "tab10" if len(class_names) <= 10 else "tab20"
    x, y = coordinates.T
    axes.scatter(x, y, c=labels % (10 if colors == "tab10" else 20), cmap=colors, s=7)
    if len(class_names) <= LEGIBLE_CLASSES:
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "alpha": 0.8, "linewidth": 0}
        for i in np.unique(labels):
            across, up = np.median(coordinates[labels == i], axis=0)
            name = label(class_names[i], 12)
            axes.text(across, up, name, ha="center", va="center", weight="bold", bbox=box)
    for axis, fraction, number in zip((axes.xaxis, axes.yaxis), fractions, (1, 2), strict=True):
        axis.set_label_text(f"component {number} ({fraction:.1%} of the variance)")
    text = f"{layer} of {len(labels):,} images: the two principal components"
    axes.set_title(titled(subject, text), fontsize=10)
    save_figure(figure, path)


class Saliency(NamedTuple):
    """What the answer for an image depends on.

    Attributes:
      title: description of the image and the answer.
      image: image as the network receives it, pixels in [0, 1].
      cam: result of `probes.grad_cam`, of the size of the image.
      occlusion: result of `probes.occlusion`, probabilities of the answer.
    """

    title: str
    image: Float[np.ndarray, "height width channels"]
    cam: Float[np.ndarray, "height width"]
    occlusion: Float[np.ndarray, "rows columns"]


def save_saliency(
    rows: Sequence[Saliency], layer: str, size: int, path: Path, *, subject: str = ""
) -> None:
    """Draw a row for each image: the image, Grad-CAM, and the occlusion sensitivity.

    Args:
      rows: the images.
      layer: layer of Grad-CAM.
      size: side of the occluding square, in pixels.
      path: file to write.
      subject: the run and the data.
    """
    figure = make_figure(7, 1.1 + 2.1 * len(rows))
    grid = figure.subplots(len(rows), 3, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
    for (plain, cam, occluded), row in zip(grid, rows, strict=True):
        height, width, channels = row.image.shape
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        picture = row.image if channels == 3 else row.image[..., 0]
        plain.imshow(picture, "gray", vmin=0, vmax=1)
        plain.set_ylabel(row.title, fontsize=9)
        faint = row.image.mean(axis=-1)
        cam.imshow(faint, "gray", vmin=0, vmax=1)
        cam.imshow(row.cam, "inferno", vmin=0, vmax=row.cam.max() or 1, alpha=0.6)
        shown = occluded.imshow(row.occlusion, "viridis", vmin=0, vmax=1, extent=extent)
        if channels == 1:
            occluded.contour(faint, levels=[0.5], colors="white", linewidths=0.6)
    if rows:
        figure.colorbar(shown, ax=grid[:, 2], aspect=30)
    grid[0, 0].set_title("as the network sees it", fontsize=9)
    grid[0, 1].set_title(f"Grad-CAM of {layer}", fontsize=9)
    grid[0, 2].set_title(
        f"probability with {size}x{size} pixels\nhere set to the mean pixel", fontsize=9
    )
    text = (
        "Middle: bright where the image speaks for the answer;\n"
        "right: dark where covering the image lowers the answer's probability"
    )
    figure.suptitle(titled(subject, text), fontsize=10)
    save_figure(figure, path)
