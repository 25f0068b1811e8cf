"""Build ONNX graphs: one method for each piece that the networks share.

A graph holds its nodes and arrays as plain Python until `onnx.py` converts them, so this module
does not import `onnx`. Nodes and their outputs have the names of the layers ("C1", "conv1"), and
arrays those of a node and its part ("C1.weight"). Maps are [batch, channels, height, width].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxcnn.layers.padding import Padding, output_size, resolve_padding


class Value(NamedTuple):
    """A value in a graph.

    Attributes:
      name: name of the node that computes it.
      shape: shape without the batch: channels, height, width; or units.
    """

    name: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """A node with one output, which has the name of the node."""

    op: str
    name: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]


class Graph:
    """Nodes and arrays, in the order in which a builder adds them.

    Attributes:
      params: parameters of the network, layer -> name -> array.
      nodes: nodes, each after those that it depends on.
      arrays: arrays by their names.
    """

    def __init__(self, params: Mapping[str, Mapping[str, Any]]) -> None:
        """Start without nodes."""
        self.params = params
        self.nodes: list[Node] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(
        self,
        op: str,
        name: str,
        *inputs: Value,
        arrays: Mapping[str, Any] | None = None,
        shape: tuple[int, ...] | None = None,
        **attributes: Any,
    ) -> Value:
        """Add a node.

        Args:
          op: type of the node.
          name: name of the node and of its output.
          *inputs: values that it depends on.
          arrays: further inputs, name of the part -> array; None leaves an optional input out.
          shape: shape of the output, without the batch; by default that of the first input.
          **attributes: attributes of the node.
        """
        names = [value.name for value in inputs]
        for part, array in (arrays or {}).items():
            names.append("" if array is None else f"{name}.{part}")
            if array is not None:
                self.arrays[names[-1]] = np.array(array, order="C")
        self.nodes.append(Node(op, name, tuple(names), attributes))
        return Value(name, inputs[0].shape if shape is None else shape)

    # Layers with parameters

    def conv(self, layer: str, x: Value, *, strides: int = 1, padding: Padding = "VALID") -> Value:
        """Add a convolution; it has groups if its kernel has fewer channels than the maps."""
        kernel, bias = (np.asarray(self.params[layer][name]) for name in ("kernel", "bias"))
        return self.conv_with(layer, x, kernel, bias, strides=strides, padding=padding)

    def conv_with(
        self,
        layer: str,
        x: Value,
        kernel: np.ndarray,
        bias: np.ndarray,
        *,
        strides: int = 1,
        padding: Padding = "VALID",
    ) -> Value:
        """Add a convolution with a kernel [height, width, channels per group, features]."""
        *window, channels, features = kernel.shape
        pads = resolve_padding(padding, window, strides=strides, input_size=x.shape[1:])
        size = output_size(x.shape[1:], window, strides=strides, padding=pads)
        return self.add(
            "Conv",
            layer,
            x,
            arrays={"weight": kernel.transpose(3, 2, 0, 1), "bias": bias},
            shape=(features, *size),
            group=x.shape[0] // channels,
            kernel_shape=window,
            pads=[low for low, _ in pads] + [high for _, high in pads],
            strides=[strides] * 2,
        )

    def dense(self, layer: str, x: Value) -> Value:
        """Add a dense layer; maps are flattened."""
        kernel, bias = (np.asarray(self.params[layer][name]) for name in ("kernel", "bias"))
        if len(x.shape) == 3:  # the rows of our kernel are in the order height, width, channels
            channels, height, width = x.shape
            rows = kernel.reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
            kernel = rows.reshape(kernel.shape)
            x = self.add("Flatten", f"{layer}.flatten", x, shape=(len(kernel),), axis=1)
        arrays = {"weight": kernel, "bias": bias}
        return self.add("Gemm", layer, x, arrays=arrays, shape=bias.shape)

    def conv_local(self, layer: str, x: Value) -> Value:
        """Add linen's `ConvLocal` with a 3x3 window and padding 1, a kernel for each position.

        ONNX has no such operator: the windows are gathered, and a batch of matrix products has one
        product for each position.
        """
        kernel, bias = (np.asarray(self.params[layer][name]) for name in ("kernel", "bias"))
        channels, height, width = x.shape
        features = bias.shape[-1]
        pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
        x = self.add("Pad", f"{layer}.pad", x, arrays={"pads": pads})
        x = self.add("Reshape", f"{layer}.pixels", x, arrays={"shape": [0, channels, -1]})
        first = (np.arange(height)[:, None] * (width + 2) + np.arange(width)).reshape(-1, 1)
        taps = (np.arange(3)[:, None] * (width + 2) + np.arange(3)).reshape(1, -1)
        x = self.add("Gather", f"{layer}.windows", x, arrays={"pixels": first + taps}, axis=2)
        x = self.add("Transpose", f"{layer}.by_position", x, perm=[2, 0, 1, 3])
        x = self.add("Reshape", f"{layer}.rows", x, arrays={"shape": [0, 0, 9 * channels]})
        kernels = kernel.reshape(height * width, 9 * channels, features)
        x = self.add("MatMul", f"{layer}.products", x, arrays={"weight": kernels})
        x = self.add("Transpose", f"{layer}.by_image", x, perm=[1, 2, 0])
        size = [0, features, height, width]
        x = self.add("Reshape", f"{layer}.maps", x, arrays={"shape": size})
        arrays = {"bias": bias.transpose(2, 0, 1)}
        return self.add("Add", layer, x, arrays=arrays, shape=(features, height, width))

    # Pooling

    def max_pool(
        self, name: str, x: Value, window: int, strides: int | None = None, ceil_mode: bool = False
    ) -> Value:
        """Add pooling by maximum."""
        return self._pool("MaxPool", name, x, window, strides, ceil_mode)

    def min_pool(self, name: str, x: Value, window: int) -> Value:
        """Add pooling by minimum, the negative of the maximum of the negative values."""
        x = self.add("Neg", f"{name}.negative", x)
        return self.add("Neg", name, self.max_pool(f"{name}.max", x, window))

    def max_blur_pool(self, name: str, x: Value, window: int) -> Value:
        """Add `layers.subsampling.max_blur_pool`; the blur is a convolution of each map."""
        x = self.max_pool(f"{name}.max", x, window, 1)
        maps, height, width = x.shape
        pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
        shape = (maps, height + 2, width + 2)
        x = self.add(
            "Pad", f"{name}.reflect", x, arrays={"pads": pads}, shape=shape, mode="reflect"
        )
        taps = np.array([1, 2, 1], np.float32) / 4
        kernel = np.repeat(np.multiply.outer(taps, taps)[..., None, None], maps, -1)
        return self.conv_with(name, x, kernel, np.zeros(maps, np.float32), strides=window)

    def avg_pool(
        self, name: str, x: Value, window: int, strides: int | None = None, ceil_mode: bool = False
    ) -> Value:
        """Add pooling by average; pixels beyond the border are not counted."""
        return self._pool("AveragePool", name, x, window, strides, ceil_mode, count_include_pad=0)

    def _pool(
        self,
        op: str,
        name: str,
        x: Value,
        window: int,
        strides: int | None,
        ceil_mode: bool,
        **attributes: Any,
    ) -> Value:
        stride = strides or window
        size = output_size(x.shape[1:], window, strides=stride, ceil_mode=ceil_mode)
        # Explicit padding, because runtimes disagree on the attribute `ceil_mode`.
        ends = [
            max(0, (m - 1) * stride + window - n) for m, n in zip(size, x.shape[1:], strict=True)
        ]
        return self.add(
            op,
            name,
            x,
            shape=(x.shape[0], *size),
            kernel_shape=[window] * 2,
            pads=[0, 0, *ends],
            strides=[stride] * 2,
            **attributes,
        )

    def adaptive_avg_pool(self, name: str, x: Value, bins: int) -> Value:
        """Add pooling to `bins` x `bins` averages; see `layers.pooling.adaptive_avg_pool`."""
        if x.shape[1:] == (bins, bins):
            return x
        return self.separable(name, x, *(_averages(size, bins) for size in x.shape[1:]))

    def separable(self, name: str, x: Value, rows: np.ndarray, columns: np.ndarray) -> Value:
        """Add a linear function of each map: `rows @ map @ columns.T`."""
        return self.add(
            "Einsum",
            name,
            x,
            arrays={"rows": rows, "columns": columns},
            shape=(x.shape[0], len(rows), len(columns)),
            equation="nchw,ih,jw->ncij",
        )

    # Normalization and nonlinearities

    def lrn(
        self, name: str, x: Value, *, size: int, alpha: float, beta: float, k: float = 1.0
    ) -> Value:
        """Add response normalization across channels; alpha is divided by the size."""
        return self.add("LRN", name, x, size=size, alpha=float(alpha), beta=beta, bias=k)

    def lrn_within_maps(
        self, name: str, x: Value, *, size: int, alpha: float, beta: float
    ) -> Value:
        """Add response normalization in squares of an odd side, which ONNX's LRN does not have.

        The denominator is (1 + alpha m)^beta, with m the mean of the squares, zeros beyond the
        border included.
        """
        squares = self.add("Mul", f"{name}.squares", x, x)
        window: dict[str, Any] = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4}
        means = self.add(
            "AveragePool", f"{name}.means", squares, count_include_pad=1, strides=[1, 1], **window
        )
        scaled = self.add("Mul", f"{name}.scaled", means, arrays={"alpha": np.float32(alpha)})
        base = self.add("Add", f"{name}.base", scaled, arrays={"k": np.float32(1)})
        power = self.add("Pow", f"{name}.power", base, arrays={"beta": np.float32(beta)})
        return self.add("Div", name, x, power)

    def relu(self, x: Value) -> Value:
        """Add a rectifier."""
        return self.add("Relu", f"{x.name}.relu", x)

    def log_softmax(self, logits: Value) -> Value:
        """Add the log-probabilities of the logits."""
        return self.add("LogSoftmax", "log_softmax", logits, axis=1)


def _averages(size: int, bins: int) -> np.ndarray:
    """Return the matrix [bins, size] whose rows average the bins of adaptive pooling."""
    matrix = np.zeros((bins, size), np.float32)
    for i in range(bins):
        start, stop = i * size // bins, -(-(i + 1) * size // bins)
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix
