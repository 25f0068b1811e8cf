"""Lazily decoded images, and the policy for corrupt ones.

An image is scaled until its shorter side has the requested number of pixels and then cropped to the
central square (Krizhevsky et al. 2012, section 2), and turned upright by its EXIF orientation.
"""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from jaxcnn.data.folders import FORMATS, decoders
from jaxcnn.data.sources import BadImageError, Encoded, Examples, Files, Subset
from jaxcnn.errors import UserError

MAX_PIXELS = 89_478_485  # Pillow's own limit for its warning: 256 MiB of colours
MAX_SAMPLE_VALUE = 281  # TIFF's tag
MOST_WARNINGS = 20  # for the bad images of a split; after those, one for every thousand

_logger = logging.getLogger(__name__)


class Images:
    """The images of a split, decoded on demand.

    Args:
      examples: encoded examples.
      size: height and width of the decoded images, in pixels.
      channels: 1 for grey levels, 3 for colours; images are converted.
      min_size: pixels that the shorter side of a stored image must have.
      max_value: largest value of pixels of more than 8 bits; by default as the file says.
      on_bad_image: "refuse" raises for an image that is corrupt or too small, "skip" replaces it in
        training and masks it in evaluation.

    Attributes:
      shape: [examples, size, size, channels].
    """

    def __init__(
        self,
        examples: Examples,
        *,
        size: int,
        channels: int,
        min_size: int,
        max_value: float | None = None,
        on_bad_image: Literal["refuse", "skip"],
    ) -> None:
        self.shape = (len(examples), size, size, channels)
        self._examples = examples
        self._min_size = min_size
        self._max_value = max_value
        self._skips = on_bad_image == "skip"
        self._bad: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "height width channels"]:
        """Return a decoded image.

        Raises:
          UserError: the image is corrupt or too small.
        """
        return self._decode(self._examples[row])

    @property
    def paths(self) -> Sequence[str]:
        """The paths of the image files; empty if the images are records."""
        return getattr(self._examples, "paths", ())

    def subset(self, rows: Sequence[int] | np.ndarray) -> Images:
        """Return some of the images, still decoded on demand."""
        chosen = copy.copy(self)
        chosen._examples = Subset(self._examples, rows)
        chosen.shape = (len(rows), *self.shape[1:])
        chosen._bad, chosen._lock = set(), threading.Lock()
        return chosen

    def training_example(self, row: int) -> dict[str, Any]:
        """Return `image` and `label` of a row, or of the next row whose image is good.

        Raises:
          UserError: the image is bad and bad images are refused, or there is no good image.
        """
        for candidate in itertools.chain(range(row, len(self)), range(row)):
            if (example := self._read(candidate)) is not None:
                return example
        raise UserError(
            "every image of the training set is bad; expected at least one good image; repair them"
        )

    def evaluation_example(self, row: int) -> dict[str, Any]:
        """Return `image`, `label` and `mask`; the mask is False for a bad image and past the end.

        Raises:
          UserError: the image is bad and bad images are refused.
        """
        example = self._read(row) if row < len(self) else None
        if example is not None:
            return example | {"mask": np.True_}
        return {
            "image": np.zeros(self.shape[1:], np.uint8),
            "label": np.int32(0),
            "mask": np.False_,
        }

    def _read(self, row: int) -> dict[str, Any] | None:
        """Return image and label of a row, or None if the image is bad and skipped."""
        if row in self._bad:
            return None
        try:
            example = self._examples[row]
            return {"image": self._decode(example), "label": np.int32(example.label)}
        except BadImageError as error:
            if not self._skips:
                raise UserError(f"{error}; {ADVICE}") from error
            with self._lock:  # two threads may read the same image at once
                if row not in self._bad:
                    self._bad.add(row)
                    if (number := len(self._bad)) <= MOST_WARNINGS or number % 1000 == 0:
                        _logger.warning(
                            "%s; skipped, bad image number %d of its split", error, number
                        )
            return None

    def _decode(self, example: Encoded) -> np.ndarray:
        _, size, _, channels = self.shape
        file = io.BytesIO(example.image)
        with open_image(file, example.name, self._min_size, self._max_value) as image:
            return fit_square(image, size, channels, self._max_value)


@contextlib.contextmanager
def open_image(
    file: BinaryIO, name: str, min_size: int, max_value: float | None
) -> Iterator[Image.Image]:
    """Open an image whose size and range are in bounds; the context may decode it.

    Args:
      file: an image file.
      name: path or name of the image, for messages.
      min_size: pixels that the shorter side must have.
      max_value: largest value of pixels of more than 8 bits; None if the file must say it.

    Raises:
      BadImageError: the image is bad, or decoding it inside of the context fails.
    """
    try:
        with Image.open(file, formats=decoders()) as image:
            check_image(image, min_size, max_value)
            yield image
    except UnidentifiedImageError as error:  # its own message names a buffer in memory
        raise BadImageError(name, UNKNOWN_FORMAT) from error
    except Exception as error:  # Pillow's decoders raise any type of exception
        raise BadImageError(name, error) from error


def fit_square(
    image: Image.Image, size: int, channels: int, max_value: float | None
) -> UInt8[np.ndarray, "size size channels"]:
    """Return the central square of an opened image, scaled and upright."""
    mode = "L" if channels == 1 else "RGB"
    image.draft(mode, (2 * size, 2 * size))  # decode a much larger JPEG at half its size or less
    whole = eight_bits(image, max_value).convert(mode)
    # Pillow widens the filter where it shrinks, which prevents aliasing.
    square = ImageOps.fit(whole, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(upright(square, image)).reshape(size, size, channels)


def eight_bits(image: Image.Image, max_value: float | None) -> Image.Image:
    """Scale pixels of more than 8 bits to 0..255; Pillow would clip them.

    Raises:
      ValueError: a pixel exceeds the largest value, or the range of the pixels is unknown.
    """
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")  # without a warning of Pillow
    if not has_more_than_eight_bits(image):
        if ";16" in str(getattr(image, "tile", "")):
            _check_sixteen_bit_colors(image.convert("RGB"), max_value)
        return image
    pixels = np.asarray(image)
    limit = largest_value(image) if max_value is None else max_value
    if not 0 <= pixels.min() <= pixels.max() <= limit:  # or a NaN
        raise ValueError(
            f"its pixels are in [{pixels.min()}, {pixels.max()}]; expected at most {limit}; "
            "set `max_value`"
        )
    if max_value is None and limit == 2**16 - 1 and image.format != "PPM" and pixels.max() < 2**14:
        raise ValueError(
            f"its 16-bit pixels are at most {pixels.max()}, as if it held data of fewer bits; "
            "set `max_value`, such as 4095 for 12 bits or 65535 for 16"
        )
    num_values = limit + 1 if pixels.dtype.kind in "iu" else limit
    return Image.fromarray(np.minimum(pixels * (256 / num_values), 255).astype(np.uint8))


def _check_sixteen_bit_colors(image: Image.Image, max_value: float | None) -> None:
    """Check that 16-bit colors fill their range, because Pillow keeps their upper 8 bits only."""
    if max_value is None:
        largest = int(np.asarray(image).max())
        if largest < 2**14 / 2**8:
            raise ValueError(
                f"its 16-bit colors are below {256 * (largest + 1):,}, as if it held data of fewer "
                "bits, which is supported for grey levels only; convert it to 8 bits, or set "
                "`max_value` to 65535 if it is dark"
            )
    elif max_value != 2**16 - 1:
        raise ValueError(
            f"`max_value` is {max_value}; expected 65535 for 16-bit colors; convert it to 8 bits"
        )


def upright(part: Image.Image, image: Image.Image) -> Image.Image:
    """Turn a part of an image as the EXIF orientation of the image says."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # corrupt EXIF data raises any type of exception; the pixels are good
        return part
    return part.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else part


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_image(image: Image.Image, min_size: int, max_value: float | None) -> None:
    """Check that the size of an image is in bounds and that the range of its pixels is known.

    Raises:
      ValueError: the image is too small or too large, or the range is unknown.
    """
    if math.prod(image.size) > MAX_PIXELS:
        raise ValueError(
            f"the image has {math.prod(image.size):,} pixels; expected at most {MAX_PIXELS:,}"
        )
    if min(image.size) < min_size:
        width, height = image.size
        raise ValueError(
            f"the image has {width}x{height} pixels; expected at least {min_size} on each side "
            "(`stream_min_size`)"
        )
    if max_value is None and has_more_than_eight_bits(image):
        largest_value(image)


def has_more_than_eight_bits(image: Image.Image) -> bool:
    """Return whether an image has one channel of more than 8 bits, or of floating point."""
    return image.mode == "F" or image.mode.startswith("I")


def largest_value(image: Image.Image) -> int:
    """Return the largest value that the file gives to a pixel of more than 8 bits.

    Raises:
      ValueError: the file does not say it.
    """
    if image.mode.startswith("I;16") and isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = int(image.tag_v2[TiffImagePlugin.BITSPERSAMPLE][0])
        stated = image.tag_v2.get(MAX_SAMPLE_VALUE)
        return int(np.max(stated)) if stated else 2**bits - 1
    if image.mode != "F" and image.format in ("PNG", "PPM"):  # Pillow scales both to 16 bits
        return 2**16 - 1
    raise ValueError(
        f"the range of its pixels is unknown (Pillow's mode {image.mode}); set `max_value`"
    )


def check_headers(splits: Sequence[Examples], min_size: int, max_value: float | None) -> None:
    """Read the header of each file of a folder; records of TFDS are not read.

    Raises:
      UserError: some headers are unreadable or bad; the message counts them and names the first.
      RunError: a file has vanished since the folder was listed, or the disk fails.
    """
    bad = []
    for split in splits:
        if not isinstance(split, Files):
            continue
        for row in range(len(split)):
            try:
                _check_header(split, row, min_size, max_value)
            except BadImageError as error:
                bad.append(f"{error.name}: {error.reason}")
    if bad:
        more = f" and {len(bad) - 3:,} others" if len(bad) > 3 else ""
        raise UserError(f"{len(bad):,} images are bad: {'; '.join(bad[:3])}{more}; {ADVICE}")


def _check_header(files: Files, row: int, min_size: int, max_value: float | None) -> None:
    with files.open(row) as file, open_image(file, files.paths[row], min_size, max_value):
        pass


UNKNOWN_FORMAT = f"expected one of the formats {', '.join(FORMATS)}"
ADVICE = (
    "repair or remove bad images, or set `on_bad_image` to skip (for small images, "
    "lower `stream_min_size`)"
)
