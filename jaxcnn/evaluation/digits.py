"""A photo or scan of a digit, brought into the form of MNIST's images.

`jaxcnn/demo/digit.js` repeats these steps in the browser: change both.
"""

from __future__ import annotations

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8
from scipy import ndimage

SHAPE = (28, 28, 1)
BOX = 20  # pixels of the larger side of a digit
LEAST = 4  # least difference of ink from the page, of 255: JPEG changes an empty page by less


def prepare_digit(image: UInt8[np.ndarray, "height width"]) -> UInt8[np.ndarray, "28 28 1"]:
    """Return a digit in MNIST's form: light on black, in a box of 20x20, centred by its mass.

    The background, which may get lighter towards one side, is subtracted; ink is what differs from
    it, darker or lighter. Specks and what touches the border are removed. The ink's box is scaled
    with its aspect ratio and anti-aliased, and its darkest tone becomes white. An image without ink
    becomes black.

    Args:
      image: grey levels.

    References:
      LeCun et al. 1998, section III.A.
    """
    ink = _ink(image)
    rows, columns = (np.flatnonzero((ink > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros(SHAPE, np.uint8)
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(cropped.shape)
    height, width = (max(1, round(scale * side)) for side in cropped.shape)
    # Pillow's filter grows with the reduction, so it is the anti-aliasing.
    resized = PIL.Image.fromarray(cropped).resize((width, height), PIL.Image.Resampling.BILINEAR)
    digit = np.clip(np.asarray(resized), 0, None)
    digit = np.minimum(digit / np.quantile(digit[digit > 0], 0.9), 1)
    placed = np.zeros(SHAPE[:2], np.float32)
    center = ndimage.center_of_mass(digit)
    top, left = (
        int(np.clip(round(14 - middle), 0, 28 - side))
        for middle, side in zip(center, digit.shape, strict=True)
    )
    placed[top : top + height, left : left + width] = digit
    return np.rint(255 * placed).astype(np.uint8)[..., None]


def _ink(image: UInt8[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Return the distance of each pixel of ink from the background, and 0 for all other pixels."""
    difference = image.astype(np.float32) - _background(image)
    strongest = np.abs(difference).max()
    if strongest < LEAST:
        return np.zeros_like(difference)
    far = np.abs(difference) > strongest / 2
    ink = difference if (difference[far] > 0).mean() > 0.5 else -difference
    tone = np.quantile(ink[far & (ink > 0)], 0.75)
    noise = 1.5 * np.median(np.abs(difference))  # the standard deviation, if it is normal
    threshold = max(min(max(0.1 * tone, 4 * noise), tone / 2), LEAST)  # a digit may fill the page
    blobs, count = ndimage.label(ink > threshold, np.ones((3, 3)))
    if not count:
        return np.zeros_like(ink)
    numbers = np.arange(1, count + 1)
    mass = ndimage.sum_labels(ink, blobs, numbers)
    border = np.unique(np.concatenate([blobs[0], blobs[-1], blobs[:, 0], blobs[:, -1]]))
    inside = ~np.isin(numbers, border)
    if mass[inside].sum() > 0.1 * mass.sum():
        mass = np.where(inside, mass, 0)
    kept = numbers[mass >= 0.05 * mass.max()]  # a five may be of two blobs, specks are smaller
    return np.where(np.isin(blobs, kept), ink, 0)


def _background(image: UInt8[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """Return the page's brightness: a quadratic function of the place, fitted without the ink."""
    height, width = image.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
    y, x = y[:, None], x[None, :]
    terms = np.stack(np.broadcast_arrays(x**0 + y * 0, x, y, x * y, x**2, y**2))
    stride = max(1, height // 100), max(1, width // 100)
    points = terms[:, :: stride[0], :: stride[1]].reshape(len(terms), -1)
    values = image[:: stride[0], :: stride[1]].ravel().astype(np.float32)
    fitted = np.full_like(values, np.median(values))
    for _ in range(5):
        distance = np.abs(values - fitted)
        near = distance <= max(3 * 1.5 * np.median(distance), LEAST)
        coefficients = np.linalg.lstsq(points[:, near].T, values[near], rcond=None)[0]
        fitted = coefficients @ points
    return np.tensordot(coefficients, terms, 1)
