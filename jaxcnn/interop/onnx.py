"""Write trained networks as ONNX models: from raw images to probabilities, for any batch size.

Preprocessing and the averaging of views are part of the model. It computes in float32.

References:
  ONNX operators of opset 17, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxcnn import report
from jaxcnn.data.transforms import CenterCrop, Deslant, RandomCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.interop.onnx_graph import Graph, Value
from jaxcnn.interop.onnx_networks import add_network
from jaxcnn.interop.trained import Input, Output, Trained, input_shape

OPSET = 17  # onnxruntime 1.12, of 2022, and newer
IR_VERSION = 8


def to_onnx(
    trained: Trained,
    card: Mapping[str, Any],
    *,
    input: Input = "uint8",
    output: Output = "log-probs",
    views: int = 1,
) -> Any:
    """Return a trained network as an `onnx.ModelProto`, checked by `onnx.checker`.

    The model has one input, `images` [batch, height, width, channels], and one output, [batch,
    classes]. Its metadata are `class_names`, a JSON list, and `card`, a JSON object.

    Args:
      trained: the network.
      card: description of the network, for the metadata.
      input: type of the input, see `trained.Input`.
      output: name of the output, see `trained.Output`.
      views: views of each image to average over, 1, 2, 5 or 10.

    Raises:
      UserError: `onnx` is not installed, or there is no builder for the network or for one of its
        transforms.
    """
    onnx = _import_onnx()
    graph = Graph(trained.params)
    raw = trained.info.image_shape
    shape = input_shape(trained.config, trained.info) if input == "preprocessed" else raw
    x = Value("images", (shape[2], *shape[:2]))
    x = graph.add("Transpose", "images.channels_first", x, perm=[0, 3, 1, 2])
    if input != "preprocessed":
        x = _preprocess(graph, x, trained, input, views)
    y = _average(graph, add_network(graph, x, trained.model), views)
    if output == "probabilities":
        y = graph.add("Exp", "softmax", y)
    graph.add("Identity", output.replace("-", "_"), y)
    properties = {"class_names": json.dumps(trained.info.class_names), "card": json.dumps(card)}
    model = _to_model(onnx, graph, trained.config.model, shape, input, y.shape)
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    return model


def _to_model(
    onnx: Any,
    graph: Graph,
    name: str,
    image_shape: tuple[int, ...],
    input: Input,
    output_shape: tuple[int, ...],
) -> Any:
    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node(node.op, node.inputs, [node.name], node.name, **node.attributes)
        for node in graph.nodes
    ]
    arrays = [_tensor(onnx, name, array) for name, array in graph.arrays.items()]
    kind = types.UINT8 if input == "uint8" else types.FLOAT
    images = helper.make_tensor_value_info("images", kind, ["batch", *image_shape])
    outputs = [graph.nodes[-1].name, types.FLOAT, ["batch", *output_shape]]
    result = helper.make_tensor_value_info(*outputs)
    return helper.make_model(
        helper.make_graph(nodes, name, [images], [result], arrays),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="jaxcnn",
        producer_version=report.package_version("jaxcnn"),
    )


def _import_onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ModuleNotFoundError:
        raise UserError(
            "an .onnx file needs the package onnx, which is not installed; run: "
            "pip install 'jaxcnn[onnx]'"
        ) from None


def _tensor(onnx: Any, name: str, array: np.ndarray) -> Any:
    if array.dtype.kind == "i":
        array = array.astype(np.int64)  # the type of shapes, pads and indices in ONNX
    return onnx.numpy_helper.from_array(array, name)


def _preprocess(graph: Graph, x: Value, trained: Trained, input: Input, views: int) -> Value:
    """Add `evaluation_preprocess`; the views are stacked along the batch, one after the other."""
    config = trained.config
    if input == "uint8":
        x = graph.add("Cast", "images.float", x, to=1)
    for i, transform in enumerate(config.transforms):
        match transform:
            case Resize(size):
                weights = [_resize_weights(side, size) for side in x.shape[1:]]
                x = graph.separable(f"resize{i}", x, *weights)
            case CenterCrop(size):
                added = [size - side for side in x.shape[1:]]
                pads = [0, 0, *(int(n / 2) for n in added), 0, 0, *(n - int(n / 2) for n in added)]
                shape = (x.shape[0], size, size)
                x = graph.add("Pad", f"center_crop{i}", x, arrays={"pads": pads}, shape=shape)
            case Deslant():
                raise UserError(
                    "`transforms` has deslant, which an .onnx file cannot hold; export to "
                    ".stablehlo, or set `input` to preprocessed and deslant the images before"
                )
            case RandomCrop(size) if views in (5, 10) and x.shape[1:] != (size, size):
                x = _corners_and_center(graph, x, size)
                if views == 10:
                    x = _with_mirror_images(graph, x)
            case RandomCrop(size):
                top, left = ((side - size) // 2 for side in x.shape[1:])
                x = _crop(graph, f"crop{i}", x, top, left, size)
            case _:
                pass  # in training only
    if views == 2:
        x = _with_mirror_images(graph, x)
    mean, std = (
        np.asarray(values, np.float32).reshape(-1, 1, 1)
        for values in (config.pixel_mean, config.pixel_std)
    )
    x = graph.add("Mul", "normalize.scaled", x, arrays={"scale": 1 / (255 * std)})
    return graph.add("Add", "normalize", x, arrays={"offset": -mean / std})


def _resize_weights(side: int, size: int) -> np.ndarray:
    """Return the matrix [size, side] by which `geometry.resize` resamples a row or a column."""
    eye = np.eye(side, dtype=np.float32)
    return np.asarray(jax.image.resize(eye, (size, side), method="bilinear"))


def _crop(graph: Graph, name: str, x: Value, top: int, left: int, size: int) -> Value:
    arrays = {"starts": [top, left], "ends": [top + size, left + size], "axes": [2, 3]}
    return graph.add("Slice", name, x, arrays=arrays, shape=(x.shape[0], size, size))


def _corners_and_center(graph: Graph, x: Value, size: int) -> Value:
    bottom, right = (side - size for side in x.shape[1:])
    places = {
        **{"top_left": (0, 0), "top_right": (0, right), "bottom_left": (bottom, 0)},
        **{"bottom_right": (bottom, right), "center": (bottom // 2, right // 2)},
    }
    crops = [_crop(graph, f"view.{name}", x, *place, size) for name, place in places.items()]
    return graph.add("Concat", "views", *crops, axis=0)


def _with_mirror_images(graph: Graph, x: Value) -> Value:
    last = np.iinfo(np.int64).min  # the start of the axis, read from its end
    arrays = {"starts": [-1], "ends": [last], "axes": [3], "steps": [-1]}
    mirrored = graph.add("Slice", f"{x.name}.mirrored", x, arrays=arrays)
    return graph.add("Concat", f"{x.name}.and_mirrored", x, mirrored, axis=0)


def _average(graph: Graph, log_probs: Value, views: int) -> Value:
    """Add the logarithm of the mean probability over the views."""
    if views == 1:
        return log_probs
    shape = log_probs.shape
    y = graph.add("Reshape", "by_view", log_probs, arrays={"shape": [views, -1, *shape]})
    y = graph.add("ReduceLogSumExp", "sum_of_views", y, axes=[0], keepdims=0)
    count = np.float32(math.log(views))
    return graph.add("Sub", "mean_of_views", y, arrays={"log_views": count}, shape=shape)
