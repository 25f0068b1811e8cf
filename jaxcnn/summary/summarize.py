"""Summarize a network layer by layer: shapes, parameters, multiply-adds and receptive fields.

The summary is computed from a trace of the model with one image; nothing is run. `segments` says
what a layer is.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn.summary.dependence import Dependence, compose, identity
from jaxcnn.summary.segments import Segment, cut, name_layers
from jaxcnn.summary.trace import Value


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a network, for one image.

    Attributes:
      name: name of the module, or a name made from that of the layer before.
      operation: short description, such as "conv 5x5, stride 4, relu", "max pool 2x2" or "full";
        it ends with the activation that follows the layer, if there is one.
      window: height and width of the window in the layer before that a unit depends on; None if the
        layer before has no height and width, as after flattening.
      output_shape: height, width and number of maps, or number of units.
      parameters: number of trainable parameters.
      multiply_adds: number of multiplications, each with its addition; pools, normalizations and
        activations outside of modules are not counted.
      padded_multiply_adds: number of multiply-adds on matrix units of 128x128, padding included;
        see `trace.Cost`.
      connections: number of inputs and biases that the units sum, over all units.
      receptive_field: height and width of the receptive field in the input, cut at its borders.
    """

    name: str
    operation: str
    window: tuple[int, int] | None
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    padded_multiply_adds: int
    connections: int
    receptive_field: tuple[int, int]

    @property
    def units(self) -> int:
        """Return the number of output values."""
        return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a network.

    Attributes:
      input_shape: shape of the first layer's input; LeNet-5 of 1998 adds a frame before that layer.
      layers: layers from input to output.
    """

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Return the number of trainable parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Return the number of multiply-adds of all layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def padded_multiply_adds(self) -> int:
        """Return the number of padded multiply-adds of all layers."""
        return sum(layer.padded_multiply_adds for layer in self.layers)

    @property
    def connections(self) -> int:
        """Return the number of connections of all layers."""
        return sum(layer.connections for layer in self.layers)


def summarize(model: nn.Module, image_shape: Sequence[int]) -> Summary:
    """Compute the layers of a network from a trace of its evaluation.

    Args:
      model: network that is a chain of layers: each depends on the layer before and on no other.
      image_shape: height, width and channels of one image.

    Raises:
      NotImplementedError: if the network is not a chain, or has an operation without a rule in
        `trace`.
    """
    segments, parameters, classes = _trace(model, image_shape)
    names = name_layers(segments)
    start = next(i for i, name in enumerate(names) if name)  # a frame may precede the layers
    while start and segments[start - 1].only_reshapes:  # a first layer may see flattened images
        start -= 1
    dependence = identity(segments[start].source_shape)
    layers = []
    groups = [
        (name, [segments[i] for i in group])
        for name, group in itertools.groupby(range(start, len(names)), key=names.__getitem__)
    ]
    following = [*([] if name else parts for name, parts in groups[1:]), []]
    for (name, parts), after in zip(groups, following, strict=True):
        within = functools.reduce(compose, (part.dependence for part in parts))
        dependence = compose(dependence, within)
        if name:
            last, owned = parts[-1], [part for part in parts if part.owner]
            class_name = classes.get(last.owner, "") if last.owner else ""
            layer = Layer(
                name=name,
                operation=_operation(parts, after, within, class_name),
                window=_window(within),
                output_shape=last.result.shape[1:],
                parameters=parameters[name],
                multiply_adds=sum(part.cost.multiply_adds for part in owned),
                padded_multiply_adds=sum(part.cost.padded_multiply_adds for part in owned),
                connections=sum(part.connections for part in owned),
                receptive_field=(dependence[1].size, dependence[2].size),
            )
            layers.append(layer)
    summary = Summary(segments[start].source_shape[1:], tuple(layers))
    if summary.parameters != parameters.total():
        raise NotImplementedError(
            f"the layers of {type(model).__name__} have {summary.parameters} parameters of "
            f"{parameters.total()}; expected all; summarize needs a chain of modules"
        )
    return summary


def _trace(
    model: nn.Module, image_shape: Sequence[int]
) -> tuple[Sequence[Segment], collections.Counter[str], dict[str | None, str]]:
    """Return the segments of a network, and the parameters and the class of each module by name."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    classes: dict[str | None, str] = {}

    def note_class(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
        classes[context.module.name] = type(context.module).__name__
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(note_class):
        jaxpr = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, image).jaxpr

    parameters: collections.Counter[str] = collections.Counter()
    values = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        trained = path[0].key == "params"
        parameters[path[1].key] += leaf.size if trained else 0
        weights = {jax.tree_util.keystr(path): leaf.size} if trained else {}
        values.append(Value(leaf.shape, weights=weights))
    return cut(jaxpr, values), parameters, classes


def _window(within: Dependence) -> tuple[int, int] | None:
    if len(within) != 4:
        return None
    return within[1].size, within[2].size


def _operation(
    parts: Sequence[Segment], after: Sequence[Segment], within: Dependence, class_name: str
) -> str:
    """Describe a layer in words; a module without products is called by its class name.

    Args:
      parts: segments of the layer.
      after: segments between the layer and the next one.
      within: dependence of the layer's result on its source.
      class_name: class of the layer's module, or the empty string.
    """
    part, window = parts[-1], _window(within)
    shrinks = any(part.shrinks for part in parts)
    kind = class_name or (_pool(parts) if shrinks else "norm")
    if "conv" in part.cost.kinds:
        kind = "conv"
    elif "dot" in part.cost.kinds:
        kind = "full" if window is None else "local"
    if window == (1, 1) and kind == "norm":
        text = f"norm, {within[3].size} maps"
    elif window is None or (window == (1, 1) and kind == class_name):
        text = kind
    else:
        text = f"{kind} {window[0]}x{window[1]}"
        stride = within[1].stride
        usual = window[0] if shrinks and kind not in ("conv", "local") else 1
        text += f", stride {stride}" if stride != usual and len(within[1].first) > 1 else ""
    text += f", {part.cost.groups} groups" if part.cost.groups > 1 else ""
    return ", ".join([text, *_activation(after)])


def _pool(parts: Sequence[Segment]) -> str:
    """Name a pool by the functions that combine its units."""
    functions = {name for part in parts for name in part.functions}
    kind = next((kind for kind, names in _POOLS.items() if functions & names), "sum")
    return f"{kind} pool"


def _activation(segments: Sequence[Segment]) -> list[str]:
    """Return the activation among the functions of segments, if there is one."""
    functions = [name for segment in segments for name in segment.functions]
    jitted = [name for name in functions if hasattr(jax.nn, name)]
    return (jitted or [_ACTIVATIONS[name] for name in functions if name in _ACTIVATIONS])[:1]


_POOLS = {
    "max": {"ge", "max", "reduce_max"},
    "min": {"le", "min", "reduce_min"},
    "average": {"div", "mul"},
}
_ACTIVATIONS = {"logistic": "sigmoid", "tanh": "tanh"}
