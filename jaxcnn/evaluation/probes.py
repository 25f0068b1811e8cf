"""Measurements inside a trained network, and on changed images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.summary import segments
from jaxcnn.training.step import TrainState


def layer_outputs(
    state: TrainState, images: Float[Array, "batch height width channels"]
) -> dict[str, Float[Array, "batch ..."]]:
    """Return the output of each layer, that of a module before its nonlinearity.

    The layers are those of `jaxcnn.summary.segments`, in the order of the network. If the network
    is no chain of layers, they are its modules.
    """
    variables = {"params": state.eval_params}
    try:
        return segments.layer_outputs(state.apply_fn, variables, images)
    except NotImplementedError:
        return _module_outputs(state, images)


def feature_maps(
    state: TrainState, images: Float[Array, "batch height width channels"]
) -> dict[str, Float[Array, "batch _height _width _maps"]]:
    """Return the outputs of each layer, in the order of the network.

    Layers whose outputs are units or maps of 1x1 are left out. Do not jit this function: a jitted
    function would return the layers in the order of their names.
    """
    outputs = layer_outputs(state, images)
    return {name: x for name, x in outputs.items() if x.ndim == 4 and x.shape[1:3] != (1, 1)}


def _module_outputs(
    state: TrainState, images: Float[Array, "batch height width channels"]
) -> dict[str, Float[Array, "batch ..."]]:
    def is_layer(module: nn.Module, method: str) -> bool:
        return module.name is not None and method == "__call__"

    _, variables = state.apply_fn(
        {"params": state.eval_params},
        images,
        train=False,
        capture_intermediates=is_layer,
        mutable="intermediates",
    )
    calls = variables["intermediates"].items()
    return {name: call["__call__"][0] for name, call in calls}


def shift(
    images: UInt8[np.ndarray, "examples height width channels"], down: int, right: int
) -> UInt8[np.ndarray, "examples height width channels"]:
    """Shift images by whole pixels.

    Grey images are filled with 0, the background of digits; colour images repeat their edge.
    """
    _, height, width, channels = images.shape
    pad = max(abs(down), abs(right))
    sides = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    padded = np.pad(images, sides, mode="constant" if channels == 1 else "edge")
    top, left = pad - down, pad - right
    return padded[:, top : top + height, left : left + width]


def shift_accuracies(
    predict: Callable[[np.ndarray], np.ndarray],
    images: UInt8[np.ndarray, "examples height width channels"],
    labels: Int[np.ndarray, " examples"],
    *,
    max_pixels: int = 4,
) -> list[float]:
    """Return the accuracy on images shifted by 0, 1, ... pixels, averaged over four directions.

    Args:
      predict: function `raw images -> [examples, classes]`; the largest output is the answer.
      images: raw images.
      labels: labels of the images.
      max_pixels: largest shift.
    """
    accuracies = []
    for pixels in range(max_pixels + 1):
        moves = {(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)}  # of 0 pixels a single one
        right = [predict(shift(images, *move)).argmax(-1) == labels for move in moves]
        accuracies.append(float(np.mean(right)))
    return accuracies
