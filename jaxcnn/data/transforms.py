"""Transforms of images before the network: small frozen dataclasses, and as text.

A config holds a tuple of them, in the order of their application; `augment.py` has the arithmetic.
The text of a transform, in config.json and on the command line, is its name with the fields that
are not at their defaults: `crop:size=24`, `affine:degrees=10.0,translate=2.0`, `flip`.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Annotated, Any, get_type_hints

from jaxcnn import records
from jaxcnn.errors import UserError, lookup
from jaxcnn.records import Bound

MAX_PIXELS = 8192  # of a side

SIDE = Bound(lambda value: 1 <= value <= MAX_PIXELS, f"in [1, {MAX_PIXELS}]")
DISTANCE = Bound(lambda value: 0 <= value <= MAX_PIXELS, f"in [0, {MAX_PIXELS}]")


@dataclasses.dataclass(frozen=True)
class Resize:
    """Bilinear resize to a square."""

    size: Annotated[int, SIDE] = 224
    """Height and width, in pixels."""


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """Crop of a square at a random place; in evaluation the square at the centre."""

    size: Annotated[int, SIDE] = 32
    """Height and width, in pixels."""
    padding: Annotated[int, DISTANCE] = 0
    """Pixels of 0 added on each side before the crop, in training only; less than `size`."""


@dataclasses.dataclass(frozen=True)
class CenterCrop:
    """Central square; smaller images are padded to it with 0."""

    size: Annotated[int, SIDE] = 28
    """Height and width, in pixels."""


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Mirror image with probability 1/2, in training only."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """Random rotation, shift, scale, shear and squeeze about the centre, in training only."""

    degrees: Annotated[float, Bound(lambda value: 0 <= value <= 180, "in [0, 180]")] = 0.0
    """Largest rotation, in degrees."""
    translate: Annotated[float, DISTANCE] = 0.0
    """Largest shift along each axis, in pixels."""
    scale: Annotated[float, Bound(lambda value: 0 <= value < 1, "in [0, 1)")] = 0.0
    """Largest change of scale: 0.1 draws a factor from 0.9 to 1.1."""
    shear: Annotated[float, Bound(lambda value: 0 <= value < 90, "in [0, 90)")] = 0.0
    """Largest shear, in degrees."""
    squeeze: Annotated[float, Bound(lambda value: 0 <= value < 1, "in [0, 1)")] = 0.0
    """Largest squeeze: 0.1 draws a factor of the width from 0.9 to 1.1, which divides the
    height."""


@dataclasses.dataclass(frozen=True)
class Deslant:
    """Lines shifted until the principal axis is vertical, of digits that are white on black."""


@dataclasses.dataclass(frozen=True)
class Invert:
    """Inversion of single pixels at random, in training only."""

    p: Annotated[float, Bound(lambda value: 0 <= value <= 1, "in [0, 1]")] = 0.1
    """Probability of each pixel."""


@dataclasses.dataclass(frozen=True)
class PCAColor:
    """Random shift of colours along the training set's principal components, in training only."""

    std: Annotated[float, Bound(lambda value: 0 <= value <= 10, "in [0, 10]")] = 0.1
    """Standard deviation of the factor that multiplies each component."""


@dataclasses.dataclass(frozen=True)
class Cutout:
    """Square of `pixel_mean`, 0 once normalized, at a random place, in training only."""

    size: Annotated[int, SIDE] = 8
    """Height and width, in pixels."""


Transform = (
    Resize
    | RandomCrop
    | CenterCrop
    | HorizontalFlip
    | Affine
    | Deslant
    | Invert
    | PCAColor
    | Cutout
)

TRANSFORMS: dict[str, type[Transform]] = {
    "resize": Resize,
    "crop": RandomCrop,
    "center-crop": CenterCrop,
    "flip": HorizontalFlip,
    "affine": Affine,
    "deslant": Deslant,
    "invert": Invert,
    "pca-color": PCAColor,
    "cutout": Cutout,
}


def to_text(transform: Transform) -> str:
    """Return a transform as text; `from_text` reads it.

    Raises:
      UserError: the value is not one of TRANSFORMS, or a field has a value of another type or out
        of its bounds, such as a size of 2.5.
    """
    names = [name for name, kind in TRANSFORMS.items() if isinstance(transform, kind)]
    if not names:
        raise UserError(
            f"{transform!r} is not a transform; expected a value such as "
            "jaxcnn.data.transforms.HorizontalFlip()"
        )
    fields = []
    for name, value in _checked_fields(names[0], transform).items():
        if repr(value) != repr(getattr(type(transform), name)):  # -0.0 is not 0.0
            fields.append(f"{name}={value!r}")
    return f"{names[0]}:{','.join(fields)}" if fields else names[0]


def from_text(text: str) -> Transform:
    """Return the transform that a text describes.

    Raises:
      UserError: there is no transform of that name, or a field is unknown, repeated, not a number
        or out of its bounds.
    """
    name, colon, rest = text.partition(":")
    kind = lookup("transform", name, TRANSFORMS)
    types = get_type_hints(kind)
    fields: dict[str, Any] = {}
    for item in rest.split(",") if colon else ():
        field, _, value = item.partition("=")
        try:
            if field in fields:
                raise ValueError
            fields[field] = types[field](value)
        except (KeyError, ValueError):
            takes = ",".join(f"{name}={getattr(kind, name)}" for name in types)
            near = difflib.get_close_matches(field, types, n=1)
            hint = f"; did you mean {name}:{near[0]}={value}" if near and value else ""
            hint = hint if near != [field] else ""
            raise UserError(
                f"{text!r} has {item!r}; expected "
                + (f"fields each once, as in {name}:{takes}" if takes else f"only {name!r}")
                + hint
            ) from None
    transform = kind(**fields)
    _checked_fields(name, transform)
    return transform


def _checked_fields(name: str, transform: Transform) -> dict[str, Any]:
    """Return the fields of a transform as plain numbers."""
    fields = {}
    for field, kind in get_type_hints(type(transform), include_extras=True).items():
        given, default = getattr(transform, field), getattr(type(transform), field)
        try:
            value = records.plain(given)
        except TypeError:
            value = repr(given)
        # A float that was given as 10 has the text of 10.0.
        fields[field] = type(default)(records.convert(value, kind, f"{field} of {name}"))
    if isinstance(transform, RandomCrop) and fields["padding"] >= fields["size"]:
        raise UserError(
            f"padding of {name} is {fields['padding']}; expected less than its size, "
            f"{fields['size']}, because a crop may not miss the image"
        )
    return fields
