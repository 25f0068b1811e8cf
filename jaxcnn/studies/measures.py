"""What studies measure on a finished run: its test error, and its answers to moved images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from jaxcnn import config as configs
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

PIXELS = tuple(range(11))
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
DEGREES = (0, 10, 20, 30, 40, 50, 60)
INVERTED = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
DEVIATIONS = (0, 16, 32, 48, 64, 96, 128)


def test_error(run: Path) -> Measured:
    """Return the test error of a run in percent, as training reported it."""
    result = workdirs.read_result(run)
    assert result is not None
    return {"test_error": 100 * (1 - result["test_accuracy"])}


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


def _test_set(run: Path) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the test images of a run, their labels, and the function from images to answers."""
    from jaxcnn.data.open import open_split  # late, as the next: these import jax
    from jaxcnn.evaluation.predict import load

    config = workdirs.read_config(run)
    split = open_split(config.dataset, None, **configs.dataset_options(config))
    assert isinstance(split.images, np.ndarray) and split.labels is not None
    classifier = load(run)
    return (
        split.images,
        split.labels,
        lambda images: classifier.log_probs_of_one_view(images).argmax(-1),
    )


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
