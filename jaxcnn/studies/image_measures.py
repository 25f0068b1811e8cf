"""What studies measure on a finished run with changed test images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

if TYPE_CHECKING:
    from jaxcnn.data.datasets import Dataset

PIXELS = tuple(range(11))
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
DEGREES = (0, 10, 20, 30, 40, 50, 60)
INVERTED = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
DEVIATIONS = (0, 16, 32, 48, 64, 96, 128)
MARGINS = (0, 1, 2, 3, 4)


def invariance(run: Path) -> Measured:
    """Return what becomes of the answers when the test images are shifted, scaled and rotated.

    Returns:
      `test_error`, in percent; `consistency`, the percentage of images that have the same answer
      after a shift by each of PIXELS (mean over up, down, left and right); `accuracy`, in percent,
      of the same shifts; `scale_accuracy` and `rotation_accuracy`, by SCALES and DEGREES, rotations
      as the mean of both directions; `consistency_3`, the consistency at 3 pixels.
    """
    from jaxcnn.evaluation.probes import shift  # late, because it imports jax

    images, labels, answer = _test_set(run)
    unmoved = answer(images)
    consistency, accuracy = [], []
    for pixels in PIXELS:
        moves = {(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)}  # of 0 pixels a single one
        answers = [answer(shift(images, *move)) for move in sorted(moves)]
        consistency.append(_percent([moved == unmoved for moved in answers]))
        accuracy.append(_percent([moved == labels for moved in answers]))
    resized_images, rotated_images = _moved(images.tobytes(), images.shape)
    scaled = [_percent([answer(moved) == labels]) for moved in resized_images]
    turned = [_percent([answer(moved) == labels for moved in both]) for both in rotated_images]
    return {
        **test_error(run),
        "consistency": consistency,
        "accuracy": accuracy,
        "scale_accuracy": scaled,
        "rotation_accuracy": turned,
        "consistency_3": consistency[PIXELS.index(3)],
    }


@functools.lru_cache(1)  # the runs of a study have the same test images
def _moved(
    pixels: bytes, shape: tuple[int, ...]
) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Return test images scaled by SCALES, and rotated by DEGREES in both directions."""
    images = np.frombuffer(pixels, np.uint8).reshape(shape)
    scaled = [resized(images, scale) for scale in SCALES]
    return scaled, [(rotated(images, -degrees), rotated(images, degrees)) for degrees in DEGREES]


def noise(run: Path) -> Measured:
    """Return the error on noisy test images.

    Returns:
      `test_error`, in percent; `inverted_error`, in percent, where each pixel is inverted with each
      probability of INVERTED; `gaussian_error`, with normal noise of each standard deviation of
      DEVIATIONS added to pixels in 0..255; `inverted_error_10`, for the paper's probability of 0.1.
    """
    images, labels, answer = _test_set(run)
    rng = np.random.default_rng(0)  # the same noise for every run
    uniform, normal = rng.random(images.shape), rng.standard_normal(images.shape, np.float32)
    inverted = [np.where(uniform < p, 255 - images, images) for p in INVERTED]
    added = [np.clip(images + std * normal, 0, 255).astype(np.uint8) for std in DEVIATIONS]
    errors, gaussian = (
        [_percent([answer(noisy) != labels]) for noisy in each] for each in (inverted, added)
    )
    return {
        **test_error(run),
        "inverted_error": errors,
        "gaussian_error": gaussian,
        "inverted_error_10": errors[INVERTED.index(0.1)],
    }


def borders(run: Path) -> Measured:
    """Return what becomes of digits near the border, and how well maps tell their place.

    Returns:
      `test_error`, in percent; `margin_error`, in percent, of the test images moved up, down, left
      and right until the digit is each of MARGINS pixels from the border; `border_extra`, the error
      of digits that touch it, less the test error, in points; `border_gradient`, the mean absolute
      gradient of the label's log-probability by the pixels at each of MARGINS from the border of
      the unmoved images, in percent of its mean over all pixels; `position`, the share of the
      variance of a unit's row and column that a linear function of the maps of C3 explains, in
      percent, where all pixels are noise.
    """
    images, labels, answer = _test_set(run)
    errors = []
    for margin in MARGINS:
        moved = (to_border(images, side, margin) for side in range(4))
        errors.append(_percent([answer(each) != labels for each in moved]))
    error = test_error(run)
    return {
        **error,
        "margin_error": errors,
        "border_extra": errors[0] - float(error["test_error"]),  # type: ignore[arg-type]
        "border_gradient": _gradient_by_distance(run, images[:1000], labels[:1000]),
        "position": _position_explained(run, images.shape[1:]),
    }


def to_border(
    images: UInt8[np.ndarray, "examples height width 1"], side: int, margin: int
) -> UInt8[np.ndarray, "examples height width 1"]:
    """Move each digit until its ink, pixels above 31, is `margin` pixels from a side.

    Args:
      images: digits on a background of 0.
      side: 0 top, 1 bottom, 2 left, 3 right.
      margin: pixels between the ink and the border.
    """
    axis = 1 if side < 2 else 2
    ink = np.max(images[..., 0], axis=3 - axis) > 31  # [examples, rows or columns]
    if side % 2:  # bottom or right
        distances = margin - ink[:, ::-1].argmax(1)
    else:
        distances = ink.argmax(1) - margin
    moved = np.empty_like(images)
    size = images.shape[axis]
    for distance in np.unique(distances):
        rows = distances == distance
        index = np.arange(size) + distance
        inside = (index >= 0) & (index < size)
        taken = images[rows].take(np.clip(index, 0, size - 1), axis)
        shape = [1, 1, 1, 1]
        shape[axis] = size
        moved[rows] = np.where(inside.reshape(shape), taken, 0)
    return moved


def _gradient_by_distance(run: Path, images: np.ndarray, labels: np.ndarray) -> list[float]:
    import jax  # late, as all imports of these functions
    import jax.numpy as jnp

    from jaxcnn.evaluation.predict import load

    classifier = load(run)

    def log_prob(images: jax.Array) -> jax.Array:
        log_probs = jax.nn.log_softmax(
            classifier.state.apply_fn({"params": classifier.state.params}, images)
        )
        return jnp.take_along_axis(log_probs, labels[:, None], axis=-1).sum()

    grads = np.abs(jax.jit(jax.grad(log_prob))(classifier.preprocess(images))).mean((0, 3))
    height, width = grads.shape
    rows, columns = np.indices(grads.shape)
    distance = np.minimum.reduce([rows, height - 1 - rows, columns, width - 1 - columns])
    return [
        round(100 * float(grads[distance == margin].mean() / grads.mean()), 4) for margin in MARGINS
    ]


def _position_explained(run: Path, shape: Sequence[int]) -> float:
    from jaxcnn.evaluation.predict import load
    from jaxcnn.evaluation.probes import layer_outputs

    classifier = load(run)
    noise = np.random.default_rng(0).integers(256, size=(512, *shape), dtype=np.uint8)
    maps = np.asarray(layer_outputs(classifier.state, classifier.preprocess(noise))["C3"])
    places = np.broadcast_to(np.moveaxis(np.indices(maps.shape[1:3]), 0, -1), (*maps.shape[:3], 2))
    inputs = np.concatenate([maps, np.ones_like(maps[..., :1])], -1)
    fitted, held_out = (slice(0, 256), slice(256, None))
    features, targets = (
        [each[part].reshape(-1, each.shape[-1]) for part in (fitted, held_out)]
        for each in (inputs, places - places.mean((0, 1, 2)))
    )
    weights = np.linalg.lstsq(features[0], targets[0], rcond=None)[0]
    residual = targets[1] - features[1] @ weights
    return round(100 * float(1 - np.square(residual).sum() / np.square(targets[1]).sum()), 4)


def _test_set(run: Path) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the test images of a run, their labels, and the function from images to answers."""
    from jaxcnn.evaluation.predict import load  # late, because it imports jax

    images, labels = test_images(run)
    classifier = load(run)
    return images, labels, lambda images: classifier.log_probs_of_one_view(images).argmax(-1)


def test_images(run: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the test images and labels of a run, uint8 and int32."""
    from jaxcnn.data.open import open_split  # late, because it imports jax

    config = workdirs.read_config(run)
    split = open_split(config.dataset, None, **configs.dataset_options(config))
    assert isinstance(split.images, np.ndarray) and split.labels is not None
    return split.images, split.labels


def dataset_of(config: TrainConfig) -> Dataset:
    """Return the dataset of a config, with the training images that its run is trained on."""
    from jaxcnn.data.datasets import Dataset  # late, because these import jax
    from jaxcnn.data.open import open_dataset
    from jaxcnn.data.splits import split_training_set

    dataset = split_training_set(
        open_dataset(config.dataset, **configs.dataset_options(config)),
        val_fraction=config.val_fraction,
        train_examples=config.train_examples,
        label_noise=config.label_noise,
        seed=config.seed,
    )
    assert isinstance(dataset, Dataset)
    return dataclasses.replace(dataset, val_images=None, val_labels=None)


def resized(
    images: UInt8[np.ndarray, "examples height width channels"], scale: float
) -> UInt8[np.ndarray, "examples height width channels"]:
    """Scale images about their centre, bilinearly, with a background of 0."""
    return _affine(images, np.eye(2) / scale)


def rotated(
    images: UInt8[np.ndarray, "examples height width channels"], degrees: float
) -> UInt8[np.ndarray, "examples height width channels"]:
    """Rotate images about their centre, bilinearly, with a background of 0."""
    angle = np.deg2rad(degrees)
    return _affine(
        images, np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    )


def _affine(
    images: UInt8[np.ndarray, "examples height width channels"], matrix: Float[np.ndarray, "2 2"]
) -> UInt8[np.ndarray, "examples height width channels"]:
    """Return images whose pixel y is the input at `matrix @ y`, both counted from the centre."""
    import scipy.ndimage  # late, because listing the studies imports this module

    whole = np.eye(4)
    whole[1:3, 1:3] = matrix
    center = (np.array(images.shape) - 1) / 2
    moved = scipy.ndimage.affine_transform(
        images, whole, offset=center - whole @ center, order=1, output=np.float32
    )
    return np.rint(moved).astype(np.uint8)


def _percent(right: Sequence[np.ndarray]) -> float:
    return round(100 * float(np.mean(right)), 4)
