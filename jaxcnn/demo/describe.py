"""Describe a network of LeNet's family as layers and numbers, for network.js."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxcnn.data.preprocess import evaluation_preprocess
from jaxcnn.errors import UserError
from jaxcnn.interop.trained import Trained, input_shape
from jaxcnn.layers.pooling import avg_pool, lp_pool, max_pool, min_pool
from jaxcnn.layers.subsampling import max_blur_pool, overlapping_max_pool, subsample
from jaxcnn.models.lenet import LeNet5, LeNet5Modern
from jaxcnn.models.lenet_1998 import BACKGROUND, BITMAPS, TABLE_I, LeNet1998, squash
from jaxcnn.models.variants import changed_fields

FAMILY = (LeNet5, LeNet5Modern, LeNet1998)
SHAPE = (28, 28, 1)

# Activations that network.js computes by their formula; all others are tables.
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "relu": nn.relu,
    "squash": squash,
}
IDENTITY, RELU, SQUASH = ({"name": name} for name in ("identity", "relu", "squash"))

# A table reaches from -REACH to REACH. Between and beyond its entries are straight lines.
REACH, STEP = 16, 1 / 256
TABLE_ERROR = 1e-5  # largest accepted error between two entries

# Pools by their names in pools.js.
POOLS: dict[str, Callable[..., Any]] = {
    "average": avg_pool,
    "max": max_pool,
    "min": min_pool,
    "first": subsample,
    "overlapping": overlapping_max_pool,
    "blur": max_blur_pool,
}


def describe(trained: Trained) -> dict[str, Any]:
    """Return a network as JSON types.

    Returns:
      A dict with `input` (mean and deviation of pixels in [0, 1], width of the frame around the
      image, its value), `layers`, `rejection` (j of the network of 1998, whose probabilities leave
      some for "none"; else None) and `numbers`: all parameters as base64 of little-endian float32,
      into which the layers' `weights` and `bias` are pairs of offset and length.

    Raises:
      UserError: the network is not of LeNet's family or does not see 28x28 grey pixels, or its
        pooling or activation cannot be computed without JAX.
    """
    _check(trained)
    model, config = trained.model, trained.config
    if others := changed_fields(model, known=("activation", "pool", "j")):
        raise UserError(
            f"the network of {trained.name} has its own {', '.join(others)}; expected the defaults "
            "of these fields, with which the page can compute it"
        )
    layers = _Layers(trained.params)
    if isinstance(model, LeNet1998):
        _add_lenet_1998(layers)
    elif isinstance(model, LeNet5Modern):
        _add_lenet5_modern(layers)
    elif isinstance(model, LeNet5):
        _add_lenet5(layers, model)
    is_1998 = isinstance(model, LeNet1998)
    return {
        "input": {
            "mean": config.pixel_mean[0],
            "std": config.pixel_std[0],
            "frame": 2,
            "frame_value": BACKGROUND if is_1998 else 0.0,
        },
        "layers": layers.layers,
        "rejection": model.j if is_1998 else None,
        "numbers": encode(np.concatenate(layers.numbers)),
    }


def encode(values: np.ndarray) -> str:
    """Return an array as base64 of little-endian float32."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _check(trained: Trained) -> None:
    if type(trained.model) not in FAMILY:
        names = ", ".join(kind.__name__ for kind in FAMILY)
        raise UserError(
            f"the network of {trained.name} is {type(trained.model).__name__}; expected one of "
            f"LeNet's family ({names}), which the page can compute and draw"
        )
    for shape in (trained.info.image_shape, input_shape(trained.config, trained.info)):
        if tuple(shape) != SHAPE:
            raise UserError(
                f"the images of {trained.name} are {tuple(shape)}; expected {SHAPE}, grey pixels "
                "that can be drawn"
            )
    image = np.random.default_rng(0).integers(256, size=(1, *SHAPE), dtype=np.uint8)
    config = trained.config
    plain, prepared = (
        evaluation_preprocess(transforms, config.pixel_mean, config.pixel_std)(image)
        for transforms in ((), config.transforms)
    )
    if not np.array_equal(plain, prepared):
        raise UserError(
            f"the transforms of {trained.name} change test images; expected none or random ones, "
            "because the page draws what the network receives"
        )


def _add_lenet5(layers: _Layers, model: LeNet5) -> None:
    activation, pool = layers.activation(model.activation), _pool(model.pool)
    layers.conv("C1", 28, activation)
    layers.add("S2", "pool", 6, 14, **pool)
    layers.conv("C3", 10, activation)
    layers.add("S4", "pool", 16, 5, **pool)
    layers.conv("C5", 1, activation)
    layers.conv("F6", 1, activation)
    layers.conv("output", 1)


def _add_lenet5_modern(layers: _Layers) -> None:
    layers.conv("C1", 28)
    layers.add("S2", "pool", 24, 14, pool="max", activation=RELU)
    layers.conv("C3", 10)
    layers.add("S4", "pool", 32, 5, pool="max", activation=RELU)
    layers.conv("C5", 1, RELU)
    layers.conv("output", 1)


def _add_lenet_1998(layers: _Layers) -> None:
    layers.conv("C1", 28, SQUASH)
    layers.subsampling("S2", 14)
    # Absent connections have no parameter; here they are weights that are not read.
    weights = np.asarray(layers.params["C3"]["kernel"])
    kernel = np.zeros((5, 5, 6, len(TABLE_I)), np.float32)
    target = np.repeat(np.arange(len(TABLE_I)), [len(maps) for maps in TABLE_I])
    kernel[:, :, np.concatenate(TABLE_I), target] = weights
    parameters = weights.size + len(TABLE_I)
    layers.conv("C3", 10, SQUASH, kernel=kernel, table=TABLE_I, parameters=parameters)
    layers.subsampling("S4", 5)
    layers.conv("C5", 1, SQUASH)
    layers.conv("F6", 1, SQUASH)
    layers.add("output", "rbf", 10, 1, weights=layers.store(BITMAPS))


class _Layers:
    """The layers added so far, and their numbers."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.params = params
        self.layers: list[dict[str, Any]] = []
        self.numbers: list[np.ndarray] = []

    def add(self, name: str, kind: str, maps: int, size: int, **fields: Any) -> None:
        fields = {"activation": IDENTITY, **fields}
        self.layers.append({"name": name, "kind": kind, "maps": maps, "size": size, **fields})

    def conv(
        self,
        name: str,
        size: int,
        activation: dict[str, Any] = IDENTITY,
        *,
        kernel: np.ndarray | None = None,
        **fields: Any,
    ) -> None:
        """Add a VALID convolution, or a dense layer: the former of a 1x1 kernel."""
        bias = np.asarray(self.params[name]["bias"])
        weights = np.asarray(self.params[name]["kernel"] if kernel is None else kernel)
        dense = weights.ndim == 2
        parameters = {"parameters": weights.size + bias.size}
        numbers = {"weights": self.store(weights), "bias": self.store(bias)}
        fields = {"activation": activation, **parameters, **numbers, **fields}
        side = 1 if dense else len(weights)
        self.add(name, "conv", len(bias), size, kernel=side, dense=dense, **fields)

    def subsampling(self, name: str, size: int) -> None:
        params = self.params[name]
        maps = len(params["bias"])
        numbers = {"weights": self.store(params["coefficient"]), "bias": self.store(params["bias"])}
        fields = {"pool": "average", "activation": SQUASH, "parameters": 2 * maps}
        self.add(name, "pool", maps, size, **fields, **numbers)

    def store(self, array: Any) -> tuple[int, int]:
        values = np.asarray(array, np.float32).ravel()
        offset = sum(len(earlier) for earlier in self.numbers)
        self.numbers.append(values)
        return offset, len(values)

    def activation(self, function: Callable[[Any], Any]) -> dict[str, Any]:
        places = np.arange(-REACH, REACH + STEP, STEP, dtype=np.float32)
        values = _apply(function, places)
        for name, known in ACTIVATIONS.items():
            if np.allclose(values, known(places), rtol=1e-6, atol=1e-6):
                return {"name": name}
        name = getattr(getattr(function, "func", function), "__name__", "activation")
        middles = _apply(function, places[:-1] + np.float32(STEP / 2))
        error = np.abs(middles - (values[1:] + values[:-1]) / 2).max()
        if not error <= TABLE_ERROR:  # nor NaN
            raise UserError(
                f"the activation {name} is not continuous or bends sharply; expected a function "
                f"that lines between points {STEP} apart follow to {TABLE_ERROR}"
            )
        return {"name": name, "table": self.store(values), "first": -REACH, "step": STEP}


def _apply(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    """Return an activation's values.

    Raises:
      UserError: a value depends on other elements, too.
    """
    results, reverse, part = (
        np.asarray(function(jnp.asarray(x).reshape(1, 1, 1, -1)), np.float32).ravel()
        for x in (values, values[::-1], values[:99])
    )
    same = len(results) == len(values) and np.allclose(results, reverse[::-1], equal_nan=True)
    if not same or not np.allclose(results[:99], part, equal_nan=True):
        raise UserError(
            f"the activation {function} mixes the elements of its input; expected an elementwise "
            "function"
        )
    return results


def _pool(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the kind of a pooling function, found by its values.

    Raises:
      UserError: the page cannot compute it.
    """
    images = np.random.default_rng(0).normal(size=(1, 6, 6, 3)).astype(np.float32)
    pooled = np.asarray(function(images, (2, 2)))
    candidates = dict(POOLS)
    ones = float(np.asarray(function(np.ones_like(images), (2, 2))).ravel()[0])
    p = math.log(4) / math.log(ones) if ones > 1 else 0.0  # the p-norm of four ones is 4^(1/p)
    if p > 0.999:
        candidates["lp"] = lambda images, window: lp_pool(images, window, p=max(p, 1.0))
    for kind, candidate in candidates.items():
        expected = np.asarray(candidate(images, (2, 2)))
        if pooled.shape == expected.shape and np.allclose(pooled, expected, atol=1e-5):
            return {"pool": kind} if kind != "lp" else {"pool": kind, "p": round(p, 4)}
    raise UserError(
        f"the pooling {function} is none of {', '.join(POOLS)} and lp of 2x2; expected one of them"
    )
