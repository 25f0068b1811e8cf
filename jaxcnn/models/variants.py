"""Networks by name: an entry of MODELS, or one with other fields, as `lenet5-tanh:pool=max`."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from flax import linen as nn

from jaxcnn.errors import UserError, lookup
from jaxcnn.layers.pooling import avg_pool, max_pool, min_pool
from jaxcnn.layers.subsampling import (
    max_blur_pool,
    overlapping_avg_pool,
    overlapping_max_pool,
    subsample,
)
from jaxcnn.models import IMAGE_SHAPES, MODELS, initializers
from jaxcnn.models.lenet_1998 import squash

# Fields of the networks whose values are chosen by name. Others are numbers, or true and false.
CHOICES: dict[str, Mapping[str, Any]] = {
    "activation": {"sigmoid": nn.sigmoid, "tanh": nn.tanh, "squash": squash, "relu": nn.relu},
    "pool": {
        "average": avg_pool,
        "max": max_pool,
        "min": min_pool,
        "overlapping-average": overlapping_avg_pool,
        "overlapping-max": overlapping_max_pool,
        "blurred-max": max_blur_pool,
        "none": subsample,
    },
    "padding": {
        "same": "SAME",
        "valid": "VALID",
        "full": 4,
        "reflect": "REFLECT",
        "circular": "CIRCULAR",
    },
    "initial": {
        "linen": initializers.linen_layer,
        "paper": initializers.paper_layer,
        "lecun-uniform": initializers.lecun_layer,
        "torch": initializers.torch_layer,
        "glorot": initializers.glorot_layer,
    },
}

# Fields that a run sets by other flags, or that the engine sets.
_HIDDEN = ("num_classes", "dtype", "parent", "name")


def constructor(name: str) -> Callable[..., nn.Module]:
    """Return the constructor of a network, with arguments `num_classes` and `dtype`.

    Args:
      name: name in MODELS, then, after a colon, fields with values of CHOICES, numbers, or true and
        false: `lenet5:activation=relu,pool=max`.

    Raises:
      UserError: there is no such network, field or value; the message names those that exist.
    """
    base, colon, rest = name.partition(":")
    model = lookup("model", base, MODELS)
    if not colon:
        return model
    fields: dict[str, Any] = {}
    known = options(base)
    for item in rest.split(","):
        field, equals, text = item.partition("=")
        if not equals or field not in known or field in fields:
            forms = ", ".join(f"{each}={form}" for each, form in known.items())
            raise UserError(
                f"{name!r} has {item!r}; expected fields each once, of {forms or 'no field'}"
            )
        fields[field] = _value(name, field, text, known[field])
    return functools.partial(model, **fields)


def base_name(name: str) -> str:
    """Return the name in MODELS of a network."""
    return name.partition(":")[0]


def image_shape(name: str) -> tuple[int, int, int]:
    """Return height, width and channels of the images that a network was designed for."""
    base = base_name(name)
    if base not in IMAGE_SHAPES:
        raise UserError(
            f"{base} has no image shape; add its entry to IMAGE_SHAPES in jaxcnn.models"
        )
    return IMAGE_SHAPES[base]


def options(base: str) -> dict[str, str]:
    """Return the fields of an entry of MODELS that its name may set: field -> form of its value."""
    module = MODELS[base]
    while isinstance(module, functools.partial):
        module = module.func
    forms = {}
    for field, kind in typing.get_type_hints(module).items():
        if field in CHOICES:
            forms[field] = "|".join(CHOICES[field])
        elif kind in (int, float, bool) and field not in _HIDDEN:
            forms[field] = {int: "N", float: "X", bool: "true|false"}[kind]
    return forms


def changed_fields(model: nn.Module, *, known: Collection[str]) -> list[str]:
    """Return the fields of a network that are not at their defaults, but for the known ones.

    Args:
      model: the network.
      known: fields that the caller reads.
    """
    ignored = {*known, *_HIDDEN, "by_fan_in", "initial"}  # the last two: initial values
    return [
        field.name
        for field in dataclasses.fields(model)
        if field.name not in ignored and getattr(model, field.name) != field.default
    ]


def _value(name: str, field: str, text: str, form: str) -> Any:
    if field in CHOICES and text in CHOICES[field]:
        return CHOICES[field][text]
    try:
        if form in ("N", "X"):
            number = int(text) if form == "N" else float(text)
            if math.isfinite(number):
                return number
        if form == "true|false":
            return {"true": True, "false": False}[text]
    except (KeyError, ValueError):
        pass
    raise UserError(f"{name!r} has {field}={text}; expected {field}={form}")
