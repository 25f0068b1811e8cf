"""From an image file or an array to a raw image of the size that a network was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from jaxcnn.data import decode
from jaxcnn.data.sources import MAX_BYTES, BadImageError
from jaxcnn.errors import UserError
from jaxcnn.evaluation import digits as digit_images
from jaxcnn.files import open_regular

Image = str | os.PathLike[str] | np.ndarray
Prepare = Literal["auto", "digit", "none"]

LARGEST = 1600  # pixels of the longer side of a photo in which a digit is searched
DIGITS = ("mnist", "mnist5k", "qmnist")  # datasets whose images `prepare_digit` imitates


def raw_images(
    images: Image | Sequence[Image],
    shape: tuple[int, int, int],
    *,
    prepare: Prepare,
    digits: bool,
    max_value: float | None = None,
) -> np.ndarray:
    """Return images as one array [images, *shape]: uint8, or float32 in [0, 255].

    Args:
      images: one image or several; see `Classifier.predict`.
      shape: [height, width, channels] of the dataset's raw images.
      prepare: see `Classifier.predict`.
      digits: whether "auto" means "digit".
      max_value: largest value of pixels of more than 8 bits in files; by default as the file says.

    Raises:
      UserError: an image cannot be read, an array has another shape, type or range, or "digit" is
        asked of a network that does not see 28x28 grey pixels.
    """
    if prepare == "digit" and shape != digit_images.SHAPE:
        raise UserError(
            f"`prepare` is digit, for images of {digit_images.SHAPE}, but the network's images are "
            f"{shape}; set it to none"
        )
    many = _split(images)
    if not many:
        raise UserError("there are no images; expected at least one")
    raw = [_raw_image(image, shape, prepare, digits, max_value) for image in many]
    return np.stack(raw)


def _split(images: Image | Sequence[Image]) -> Sequence[Image]:
    if isinstance(images, str | os.PathLike):
        return [images]
    if not hasattr(images, "ndim"):
        return images
    array = np.asarray(images)
    channels_last = array.ndim == 3 and array.shape[-1] in (1, 3, 4)
    return [array] if array.ndim < 3 or channels_last else list(array)


def _raw_image(
    image: Image,
    shape: tuple[int, int, int],
    prepare: Prepare,
    digits: bool,
    max_value: float | None,
) -> np.ndarray:
    is_digit = prepare == "digit" or (prepare == "auto" and digits and shape == digit_images.SHAPE)
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        with _open(path) as file, decode.open_image(file, path, 1, max_value) as opened:
            return _prepared(opened, shape, is_digit, max_value)
    array = _checked_array(np.asarray(image))
    if array.shape == shape and prepare != "digit":
        return array
    pixels: Any = array if array.dtype == np.uint8 else np.rint(array).astype(np.uint8)
    picture = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return _prepared(picture, shape, is_digit, None)


def thumbnail(
    path: str, *, max_value: float | None = None, size: int = 200
) -> UInt8[np.ndarray, "height width 3"]:
    """Return an image file upright, in colours, at most `size` pixels high and wide.

    Raises:
      UserError: the image cannot be read.
    """
    with _open(path) as file, decode.open_image(file, path, 1, max_value) as image:
        image.draft("RGB", (size, size))
        whole = decode.upright(decode.eight_bits(image, max_value).convert("RGB"), image)
        whole.thumbnail((size, size))
        return np.asarray(whole)


def _prepared(
    image: PIL.Image.Image, shape: tuple[int, int, int], is_digit: bool, max_value: float | None
) -> UInt8[np.ndarray, "height width channels"]:
    if is_digit:
        digit = digit_images.prepare_digit(_grey(image, max_value))
        if not digit.any():
            raise UserError("no ink was found; expected a digit on a page; set `prepare` to none")
        return digit
    return decode.fit_square(image, shape[0], shape[-1], max_value)


def _grey(image: PIL.Image.Image, max_value: float | None) -> UInt8[np.ndarray, "height width"]:
    """Return an image upright, in grey levels; a transparent page contrasts with its ink."""
    image.draft("L", (LARGEST, LARGEST))
    whole = decode.upright(decode.eight_bits(image, max_value), image)
    whole.thumbnail((LARGEST, LARGEST))
    if "transparency" in image.info or whole.mode in ("RGBA", "LA", "PA"):
        colours = whole.convert("RGBA")
        opacity = np.asarray(colours)[..., 3].astype(np.float32)
        ink = (np.asarray(colours.convert("L")) * opacity).sum() / max(opacity.sum(), 1)
        page = PIL.Image.new("RGBA", colours.size, "white" if ink < 128 else "black")
        whole = PIL.Image.alpha_composite(page, colours)
    return np.asarray(whole.convert("L"))


def _open(path: str) -> BinaryIO:
    try:
        return open_regular(path, max_bytes=MAX_BYTES)
    except OSError as error:
        raise BadImageError(path, error.strerror) from error
    except ValueError as error:
        raise BadImageError(path, error) from error


def _checked_array(array: np.ndarray) -> np.ndarray:
    """Return an image as uint8, or as float32 in [0, 255], with a dimension of channels."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise UserError(
            f"an image is an array of shape {array.shape}; expected [height, width] or "
            "[height, width, channels] with 1, 3 or 4 channels"
        )
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise UserError(
            f"an image is an array of {array.dtype}; expected uint8 in 0..255 or floating point in "
            "[0, 1]; convert it with astype"
        )
    if not (array.min() >= 0 and array.max() <= 1):
        raise UserError(
            f"an image has values from {array.min():g} to {array.max():g}; expected floating point "
            "in [0, 1]; divide pixels of 0..255 by 255"
        )
    return 255 * array.astype(np.float32)
