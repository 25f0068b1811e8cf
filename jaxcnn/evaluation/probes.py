"""Measurements inside a trained network, and on changed images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
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


def layer_inputs(
    state: TrainState, images: Float[Array, "batch height width channels"], layer: str
) -> Float[Array, "batch ..."]:
    """Return the input of a layer: the output of the one before, after its nonlinearity.

    Args:
      state: training state.
      images: preprocessed images.
      layer: name of a module of the network.

    Raises:
      KeyError: there is no such module.
    """
    inputs = {}

    def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            inputs[context.module.path] = args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        state.apply_fn({"params": state.eval_params}, images, train=False)
    return inputs[layer,]


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


def grad_cam(
    state: TrainState,
    images: Float[Array, "batch height width channels"],
    classes: Sequence[int],
    *,
    layer: str,
) -> Float[np.ndarray, "batch height width"]:
    """Return where the maps of a layer speak for a class, resampled to the size of the images.

    The map is the positive part of the sum of the layer's maps after its nonlinearity, each
    weighted by the mean of its gradient of the class's output. It is not scaled.

    Args:
      state: training state of a network that is a chain of layers.
      images: preprocessed images.
      classes: class of each image.
      layer: a name in `layer_outputs` whose outputs are maps, usually the last convolution.

    References:
      Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
      Localization", 2017, section 3.
    """
    variables = {"params": state.eval_params}
    maps, rest = segments.split_at(state.apply_fn, variables, images, layer)
    rows = np.arange(len(images))

    def score(maps: Array) -> Array:
        return rest(maps)[rows, np.asarray(classes)].sum()

    weights = jax.jit(jax.grad(score))(maps).mean(axis=(1, 2), keepdims=True)
    cam = jax.nn.relu((maps * weights).sum(-1))
    return np.asarray(jax.image.resize(cam, images.shape[:3], method="bilinear"))


def occlusion(
    predict: Callable[[np.ndarray], np.ndarray],
    image: Float[np.ndarray, "height width channels"],
    class_index: int,
    *,
    size: int,
    stride: int = 1,
    fill: float = 0.0,
) -> Float[np.ndarray, "rows columns"]:
    """Return the output for a class while a square covers the image, for each place of the square.

    Entry (i, j) belongs to the square whose centre is pixel (i * stride, j * stride); an even one
    extends one pixel further up and left. Squares are cut off at the border.

    Args:
      predict: function `images -> [images, classes]`.
      image: image as `predict` takes it.
      class_index: class whose output is returned.
      size: side of the square, in pixels.
      stride: distance between two squares, in pixels.
      fill: value of the covered pixels; 0 is the mean pixel of normalized images.

    References:
      Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 4.2.
    """
    height, width, _ = image.shape
    places = [(i, j) for i in range(0, height, stride) for j in range(0, width, stride)]
    covered = np.repeat(image[None], len(places), axis=0)
    for copy, (i, j) in zip(covered, places, strict=True):
        top, left = max(0, i - size // 2), max(0, j - size // 2)
        copy[top : max(0, i - size // 2 + size), left : max(0, j - size // 2 + size)] = fill
    outputs = predict(covered)[:, class_index]
    return outputs.reshape(-(-height // stride), -(-width // stride))


def principal_components(
    features: Float[np.ndarray, "examples units"], num_components: int = 2
) -> tuple[Float[np.ndarray, "examples components"], Float[np.ndarray, " components"]]:
    """Project features on the directions of their largest variance.

    Returns:
      The coordinates, whose largest entry in each component is positive, and the fraction of the
      variance in each component.
    """
    centered = features - features.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centered, full_matrices=False)
    coordinates = left[:, :num_components] * sizes[:num_components]
    largest = coordinates[np.abs(coordinates).argmax(axis=0), np.arange(coordinates.shape[1])]
    variances = sizes**2
    fractions = variances[:num_components] / max(variances.sum(), np.finfo(sizes.dtype).tiny)
    return coordinates * np.where(largest < 0, -1, 1), fractions
