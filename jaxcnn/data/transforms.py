"""Transforms of images before the network: small frozen dataclasses, and as text.

A config holds a tuple of them, in the order of their application; `augment.py` has the arithmetic.
The text of a transform, in config.json and on the command line, is its name with the fields that
are not at their defaults: `crop:size=24`, `affine:degrees=10.0,translate=2.0`, `flip`.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import get_type_hints

from jaxcnn.errors import UserError, lookup


@dataclasses.dataclass(frozen=True)
class Resize:
    """Bilinear, to a square."""

    size: int = 224
    """Height and width, in pixels."""


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A square at a random place; in evaluation the one at the centre."""

    size: int = 32
    """Height and width, in pixels."""
    padding: int = 0
    """Pixels of 0 that are added on each side first, in training only."""


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
    """Left for right, with probability 1/2; training only."""


@dataclasses.dataclass(frozen=True)
class Affine:
    """Turned, shifted, scaled and slanted about the centre; training only."""

    degrees: float = 0.0
    """The largest rotation."""
    translate: float = 0.0
    """The largest shift along each axis, in pixels."""
    scale: float = 0.0
    """The largest change of size: 0.1 is from 0.9 to 1.1."""
    shear: float = 0.0
    """The largest slant, in degrees."""


@dataclasses.dataclass(frozen=True)
class PCAColor:
    """Colours along the training set's principal components; training only."""

    std: float = 0.1
    """Of the normal number that each component is multiplied by."""


@dataclasses.dataclass(frozen=True)
class Cutout:
    """A square of `pixel_mean`, 0 once normalized, at a random place; training only."""

    size: int = 8
    """Height and width, in pixels."""


Transform = Resize | RandomCrop | HorizontalFlip | Affine | PCAColor | Cutout

TRANSFORMS: dict[str, type[Transform]] = {
    "resize": Resize,
    "crop": RandomCrop,
    "flip": HorizontalFlip,
    "affine": Affine,
    "pca-color": PCAColor,
    "cutout": Cutout,
}


def to_text(transform: Transform) -> str:
    """Return a transform as text; `from_text` reads it.

    Raises:
      UserError: it is not one of TRANSFORMS, or a field has a value of another type, such as a size
        of 2.5.
    """
    names = [name for name, kind in TRANSFORMS.items() if isinstance(transform, kind)]
    if not names:
        raise UserError(
            f"{transform!r} is no transform, as jaxcnn.data.transforms.HorizontalFlip() is"
        )
    types, fields = get_type_hints(type(transform)), []
    for field in dataclasses.fields(transform):
        given, kind = getattr(transform, field.name), types[field.name]
        try:
            # Of 10, of NumPy's 10, the same text as of 10.0.
            value = operator.index(given) if kind is int else kind(given)
            fits = value == given or value != value  # a NaN
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise UserError(f"the {field.name} of {transform} must be of type {kind.__name__}")
        if repr(value) != repr(field.default):  # -0.0 is not 0.0
            fields.append(f"{field.name}={value!r}")
    return f"{names[0]}:{','.join(fields)}" if fields else names[0]


def from_text(text: str) -> Transform:
    """Return the transform that a text describes.

    Raises:
      UserError: there is no transform of that name, or a field is unknown or not a number.
    """
    name, _, rest = text.partition(":")
    kind = lookup("transform", name, TRANSFORMS)
    types = get_type_hints(kind)
    fields = {}
    for item in filter(None, rest.split(",")):
        field, _, value = item.partition("=")
        try:
            fields[field] = types[field](value)
        except (KeyError, ValueError):
            takes = ", ".join(f"{name}: {type_.__name__}" for name, type_ in types.items())
            raise UserError(
                f"{item!r} in {text!r} is not a field of {name} with its value; it takes "
                f"{takes or 'nothing'}, as in {to_text(kind())!r}"
            ) from None
    return kind(**fields)
