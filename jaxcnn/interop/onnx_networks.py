"""The ONNX graph of each network: a builder adds its layers in the order of its `__call__`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import linen as nn

from jaxcnn.errors import UserError
from jaxcnn.interop.onnx_graph import Graph, Value
from jaxcnn.layers.pooling import avg_pool, max_pool, min_pool
from jaxcnn.layers.subsampling import (
    max_blur_pool,
    overlapping_avg_pool,
    overlapping_max_pool,
    subsample,
)
from jaxcnn.models.alexnet import AlexNet, AlexNet32, AlexNet2012
from jaxcnn.models.cuda_convnet import CudaConvnet, CudaConvnetLocal
from jaxcnn.models.lenet import LeNet5, LeNet5Modern
from jaxcnn.models.lenet_1998 import BACKGROUND, BITMAPS, TABLE_I, LeNet1998, squash
from jaxcnn.models.lenet_early import LENET1_TABLE, LENET4_TABLE, LeNet1, LeNet4
from jaxcnn.models.mlp import MLP
from jaxcnn.models.variants import changed_fields


def add_network(graph: Graph, x: Value, model: nn.Module) -> Value:
    """Add a network to a graph that holds its parameters.

    Args:
      graph: graph to add to.
      x: preprocessed images, channels first.
      model: the network.

    Returns:
      The log-probabilities of the classes.

    Raises:
      UserError: there is no builder for the network, or LeNet5 has an unknown activation or pool.
    """
    if type(model) not in _BUILDERS:
        names = ", ".join(kind.__name__ for kind in _BUILDERS)
        raise UserError(
            f"the network is a {type(model).__name__}, which has no ONNX builder; expected one of "
            f"{names}; export it as .stablehlo"
        )
    if others := changed_fields(model, known=_FIELDS.get(type(model), ())):
        raise UserError(
            f"the network has its own {', '.join(others)}; ONNX builds {type(model).__name__} with "
            "the defaults of these fields only; export it as .stablehlo"
        )
    return _BUILDERS[type(model)](graph, x, model)


def _lenet5(graph: Graph, x: Value, model: Any) -> Value:
    pool = _pool(graph, model, model.pool)
    if model.padding in ("REFLECT", "CIRCULAR"):
        raise UserError(
            f"LeNet5 has the padding {model.padding}; expected zeros for ONNX; export it as "
            ".stablehlo"
        )
    activation = functools.partial(_activation, graph, model=model)
    x = activation(graph.conv("C1", x, padding=model.padding or "SAME"))
    x = pool("S2", x, 2)
    x = activation(graph.conv("C3", x, padding=model.padding or "VALID"))
    x = graph.adaptive_avg_pool("S4", x, 5) if model.padding else pool("S4", x, 2)
    x = activation(graph.conv("C5", x))
    x = activation(graph.dense("F6", x))
    x = graph.dense("output", x)
    return graph.log_softmax(graph.add("Softmax", "softmax", x) if model.double_softmax else x)


def _pool(
    graph: Graph, model: nn.Module, pool: Callable[..., Any]
) -> Callable[[str, Value, int], Value]:
    pools: dict[Callable[..., Any], Any] = {
        avg_pool: graph.avg_pool,
        max_pool: graph.max_pool,
        min_pool: graph.min_pool,
        overlapping_avg_pool: lambda name, x, n: graph.avg_pool(name, x, n + 1, n, ceil_mode=True),
        overlapping_max_pool: lambda name, x, n: graph.max_pool(name, x, n + 1, n, ceil_mode=True),
        max_blur_pool: graph.max_blur_pool,
        subsample: lambda name, x, n: graph.max_pool(name, x, 1, n),
    }
    return _known(model, pool, pools)


def _known(
    model: nn.Module, function: Callable[..., Any], known: Mapping[Callable[..., Any], Any]
) -> Any:
    if function not in known:
        names = ", ".join(each.__name__ for each in known)
        found = getattr(function, "__name__", function)
        raise UserError(
            f"{type(model).__name__} has {found}; expected one of {names} for ONNX; export it as "
            ".stablehlo"
        )
    return known[function]


def _lenet5_modern(graph: Graph, x: Value, model: Any) -> Value:
    x = graph.relu(graph.max_pool("S2", graph.conv("C1", x, padding="SAME"), 2))
    x = graph.relu(graph.max_pool("S4", graph.conv("C3", x), 2))
    x = graph.relu(graph.conv("C5", x))
    return graph.log_softmax(graph.dense("output", x))


def _mlp(graph: Graph, x: Value, model: Any) -> Value:
    for number in range(1, len(model.hidden) + 1):
        x = _activation(graph, graph.dense(f"hidden{number}", x), model)
    return graph.log_softmax(graph.dense("output", x))


def _activation(graph: Graph, x: Value, model: Any) -> Value:
    if model.activation is squash:
        return _squash(graph, x)
    op = _known(model, model.activation, {nn.sigmoid: "Sigmoid", nn.tanh: "Tanh", nn.relu: "Relu"})
    return graph.add(op, f"{x.name}.{op.lower()}", x)


def _squash(graph: Graph, x: Value) -> Value:
    y = graph.add("Mul", f"{x.name}.scaled", x, arrays={"slope": np.float32(2 / 3)})
    y = graph.add("Tanh", f"{x.name}.tanh", y)
    return graph.add("Mul", f"{x.name}.squash", y, arrays={"amplitude": np.float32(1.7159)})


def _lenet_1998(graph: Graph, x: Value, model: Any) -> Value:
    squash = functools.partial(_squash, graph)
    x = squash(graph.conv("C1", _frame(graph, x)))
    x = squash(_subsampling(graph, "S2", x))
    x = squash(_table_conv(graph, "C3", x, TABLE_I))
    x = squash(_subsampling(graph, "S4", x))
    x = squash(graph.conv("C5", x))
    x = squash(graph.dense("F6", x))
    x = graph.add("Unsqueeze", "output.code", x, arrays={"axes": [1]})
    x = graph.add("Sub", "output.errors", x, arrays={"bitmaps": BITMAPS.reshape(10, 84)})
    x = graph.add("ReduceSumSquare", "output.distance", x, shape=(10,), axes=[2], keepdims=0)
    x = graph.add("Neg", "output", x)
    # The criterion has an eleventh class, "none of the digits", of logit -j.
    none = {"pads": [0, 0, 0, 1], "minus_j": np.float32(-model.j)}
    x = graph.add("Pad", "output.and_none", x, arrays=none, shape=(11,))
    digits = {"starts": [0], "ends": [10], "axes": [1]}
    return graph.add("Slice", "digits", graph.log_softmax(x), arrays=digits, shape=(10,))


def _lenet1(graph: Graph, x: Value, model: Any) -> Value:
    squash = functools.partial(_squash, graph)
    x = squash(_subsampling(graph, "H2", squash(graph.conv("H1", x))))
    x = squash(_subsampling(graph, "H4", squash(_table_conv(graph, "H3", x, LENET1_TABLE))))
    return graph.log_softmax(graph.dense("output", x))


def _lenet4(graph: Graph, x: Value, model: Any) -> Value:
    squash = functools.partial(_squash, graph)
    x = squash(graph.conv("C1", _frame(graph, x)))
    pairs = {"maps": np.repeat(np.arange(4), 2)}
    x = graph.add("Gather", "S2.pairs", x, arrays=pairs, shape=(8, *x.shape[1:]), axis=1)
    x = squash(_subsampling(graph, "S2", x))
    x = squash(_subsampling(graph, "S4", squash(_table_conv(graph, "C3", x, LENET4_TABLE))))
    return graph.log_softmax(graph.dense("output", squash(graph.conv("C5", x))))


def _frame(graph: Graph, x: Value) -> Value:
    frame = {"pads": [0, 0, 2, 2, 0, 0, 2, 2], "background": np.float32(BACKGROUND)}
    return graph.add("Pad", "frame", x, arrays=frame, shape=(x.shape[0], 32, 32))


def _subsampling(graph: Graph, layer: str, x: Value) -> Value:
    coefficient, bias = (
        np.asarray(graph.params[layer][name]).reshape(-1, 1, 1) for name in ("coefficient", "bias")
    )
    x = graph.avg_pool(f"{layer}.means", x, 2)  # a quarter of the sums
    x = graph.add("Mul", f"{layer}.weighted", x, arrays={"coefficient": 4 * coefficient})
    return graph.add("Add", layer, x, arrays={"bias": bias})


def _table_conv(graph: Graph, layer: str, x: Value, table: Sequence[Sequence[int]]) -> Value:
    weights, bias = (np.asarray(graph.params[layer][name]) for name in ("kernel", "bias"))
    kernel = np.zeros((5, 5, x.shape[0], len(table)), weights.dtype)
    connections = [(source, target) for target, maps in enumerate(table) for source in maps]
    kernel[:, :, *np.transpose(connections)] = weights
    return graph.conv_with(layer, x, kernel, bias)


def _alexnet(graph: Graph, x: Value, model: Any) -> Value:
    x = graph.relu(graph.conv("conv1", x, strides=4, padding=2))
    x = graph.max_pool("pool1", x, 3, 2)
    x = graph.relu(graph.conv("conv2", x, padding=2))
    x = graph.max_pool("pool2", x, 3, 2)
    x = graph.relu(graph.conv("conv3", x, padding=1))
    x = graph.relu(graph.conv("conv4", x, padding=1))
    x = graph.relu(graph.conv("conv5", x, padding=1))
    x = graph.max_pool("pool5", x, 3, 2)
    x = graph.adaptive_avg_pool("average", x, 6)
    return _dense_layers(graph, x)


def _dense_layers(graph: Graph, x: Value) -> Value:
    x = graph.relu(graph.dense("fc6", x))
    x = graph.relu(graph.dense("fc7", x))
    return graph.log_softmax(graph.dense("fc8", x))


def _alexnet_32(graph: Graph, x: Value, model: Any) -> Value:
    x = graph.relu(graph.max_pool("pool1", graph.conv("conv1", x, padding=1), 2))
    x = graph.lrn("norm1", x, size=9, alpha=1, beta=0.5)
    x = graph.relu(graph.max_pool("pool2", graph.conv("conv2", x, padding=1), 2))
    x = graph.lrn("norm2", x, size=9, alpha=1, beta=0.5)
    x = graph.relu(graph.conv("conv3", x, padding=1))
    x = graph.relu(graph.conv("conv4", x, padding=1))
    x = graph.relu(graph.max_pool("pool5", graph.conv("conv5", x, padding=1), 2))
    return _dense_layers(graph, x)


def _alexnet_2012(graph: Graph, x: Value, model: Any) -> Value:
    paper: dict[str, Any] = {"size": 5, "alpha": 5 * 1e-4, "beta": 0.75, "k": 2.0}
    edge = (0, 227 - x.shape[1])
    x = graph.relu(graph.conv("conv1", x, strides=4, padding=(edge, edge)))
    x = graph.max_pool("pool1", graph.lrn("norm1", x, **paper), 3, 2)
    x = graph.relu(graph.conv("conv2", x, padding=2))
    x = graph.max_pool("pool2", graph.lrn("norm2", x, **paper), 3, 2)
    x = graph.relu(graph.conv("conv3", x, padding=1))
    x = graph.relu(graph.conv("conv4", x, padding=1))
    x = graph.relu(graph.conv("conv5", x, padding=1))
    x = graph.max_pool("pool5", x, 3, 2)
    return _dense_layers(graph, x)


def _cuda_convnet(graph: Graph, x: Value, model: Any) -> Value:
    f = functools.partial(_activation, graph, model=model)
    max_pool, avg_pool = (
        _pool(graph, model, model.pool or pool)
        for pool in (overlapping_max_pool, overlapping_avg_pool)
    )

    def norm(layer: str, x: Value) -> Value:
        return graph.lrn_within_maps(layer, x, size=3, alpha=5e-5, beta=0.75) if model.lrn else x

    x = norm("norm1", f(max_pool("pool1", graph.conv("conv1", x, padding=2), 2)))
    x = norm("norm2", avg_pool("pool2", f(graph.conv("conv2", x, padding=2)), 2))
    x = avg_pool("pool3", f(graph.conv("conv3", x, padding=2)), 2)
    x = f(graph.dense("fc64", x)) if model.hidden else x
    return graph.log_softmax(graph.dense("fc10", x))


def _cuda_convnet_local(graph: Graph, x: Value, model: Any) -> Value:
    f, pool = functools.partial(_activation, graph, model=model), _pool(graph, model, model.pool)

    def norm(layer: str, x: Value) -> Value:
        size = model.lrn_size
        return graph.lrn(layer, x, size=size, alpha=1e-3, beta=0.75) if size else x

    x = f(graph.conv("conv1", x, padding=2))
    if model.norm1_after_pool1:
        x = norm("norm1", pool("pool1", x, 2))
    else:
        x = pool("pool1", norm("norm1", x), 2)
    x = f(graph.conv("conv2", x, padding=2))
    x = pool("pool2", norm("norm2", x), 2)
    x = f(graph.conv_local("local3", x))
    x = f(graph.conv_local("local4", x))
    return graph.log_softmax(graph.dense("fc10", x))


_BUILDERS: dict[type[nn.Module], Callable[[Graph, Value, Any], Value]] = {
    MLP: _mlp,
    LeNet1: _lenet1,
    LeNet4: _lenet4,
    LeNet5: _lenet5,
    LeNet5Modern: _lenet5_modern,
    LeNet1998: _lenet_1998,
    AlexNet: _alexnet,
    AlexNet32: _alexnet_32,
    AlexNet2012: _alexnet_2012,
    CudaConvnet: _cuda_convnet,
    CudaConvnetLocal: _cuda_convnet_local,
}

# Fields that a builder reads, or that do not matter in evaluation.
_FIELDS: dict[type[nn.Module], tuple[str, ...]] = {
    MLP: ("hidden", "activation"),
    LeNet5: ("activation", "pool", "padding", "double_softmax"),
    LeNet1998: ("j",),
    AlexNet32: ("dropout",),
    CudaConvnet: ("lrn", "hidden", "activation", "pool"),
    CudaConvnetLocal: ("lrn_size", "norm1_after_pool1", "local3", "activation", "pool", "dropout"),
    AlexNet2012: ("initial_bias",),
}
