"""Summarize a network layer by layer: shapes, parameters, multiply-adds and receptive fields.

The summary is computed from a trace of the model with one image; nothing is run. A layer is a
module or a `jax.named_scope` in the model. Between them, an operation whose units each depend on
several units is a layer, too: a pool if it makes the maps smaller, otherwise a normalization. Its
name is S2 after C1, and pool1 or norm1 after conv1.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend.core import Jaxpr, JaxprEqn, Var

from jaxcnn.summary.dependence import Dependence, compose, identity
from jaxcnn.summary.trace import Cost, Value, inner_jaxpr, propagate, shape_of


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

    segments = _segments(jaxpr, values)
    names = _names(segments)
    start = next(i for i, name in enumerate(names) if name)  # a frame may precede the layers
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


@dataclasses.dataclass(frozen=True)
class _Segment:
    """A segment of the chain: a whole module or, between modules, as few equations as possible.

    Attributes:
      owner: name of the module or of the named scope, or None between modules.
      source_shape: shape of the array that the segment starts from.
      result: array that the segment ends in; its dependence is on the segment's source.
      cost: products in the segment.
      functions: names of the primitives and the jitted functions in the segment, in order.
    """

    owner: str | None
    source_shape: tuple[int, ...]
    result: Value
    cost: Cost
    functions: tuple[str, ...]

    @property
    def dependence(self) -> Dependence:
        """Return the dependence of the result on the source."""
        assert self.result.dependence is not None
        return self.result.dependence

    @property
    def mixes(self) -> bool:
        """Return whether some unit depends on more than one unit."""
        only_reshapes = {*self.functions} <= {"reshape", "squeeze"}
        return not only_reshapes and any(each.size > 1 for each in self.dependence)

    @property
    def shrinks(self) -> bool:
        """Return whether the result has fewer units than the source."""
        return math.prod(self.result.shape) < math.prod(self.source_shape)

    @property
    def connections(self) -> int:
        """Return the number of inputs and biases that the result's units sum, over all units."""
        return round(math.prod(self.result.shape) * self.result.fan_in)


def _segments(jaxpr: Jaxpr, values: Sequence[Value]) -> list[_Segment]:
    """Cut the trace into segments; the last argument is the image, `values` are the others."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=False))
    source = jaxpr.invars[-1]
    segments = []
    pieces = itertools.groupby(_pieces(jaxpr), key=lambda piece: piece[0] or piece[1][-1])
    for owner, group in pieces:
        eqns = [eqn for _, piece in group for eqn in piece]
        shape, cost = shape_of(source), Cost()
        known[source] = Value(shape, identity(shape))
        for eqn in eqns:
            operands = [
                known[atom] if isinstance(atom, Var) and atom in known else Value(shape_of(atom))
                for atom in eqn.invars
            ]
            known.update(zip(eqn.outvars, propagate(eqn, operands, cost), strict=True))
        source = eqns[-1].outvars[0]
        segments.append(
            _Segment(
                owner=owner if isinstance(owner, str) else None,
                source_shape=shape,
                result=known[source],
                cost=cost,
                functions=tuple(_functions(eqns)),
            )
        )
    return segments


def _pieces(jaxpr: Jaxpr) -> Iterator[tuple[str | None, list[JaxprEqn]]]:
    """Cut the trace where all later equations depend on the image through one array alone."""
    last_use = {atom: i for i, eqn in enumerate(jaxpr.eqns) for atom in _variables(eqn.invars)}
    last_use |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    image = jaxpr.invars[-1]
    of_image, alive = {image}, {image}
    piece: list[JaxprEqn] = []
    for i, eqn in enumerate(jaxpr.eqns):
        piece.append(eqn)
        if of_image.isdisjoint(_variables(eqn.invars)):
            continue
        of_image.update(eqn.outvars)
        alive.update(eqn.outvars)
        alive = {var for var in alive if last_use.get(var, -1) > i}
        if alive == {eqn.outvars[0]}:
            yield _owner(piece), piece
            piece = []


def _variables(atoms: Sequence[Any]) -> list[Var]:
    return [atom for atom in atoms if isinstance(atom, Var)]


def _owner(piece: Sequence[JaxprEqn]) -> str | None:
    """Return the outermost module or named scope inside the model, or None."""
    for eqn in piece:
        model, *scopes = str(eqn.source_info.name_stack).split("/")
        for scope in scopes:
            if scope.split(".")[0] != model:  # other methods of the model are `Model.method`
                return scope
    return None


def _functions(eqns: Sequence[JaxprEqn]) -> Iterator[str]:
    for eqn in eqns:
        jaxpr = inner_jaxpr(eqn)
        yield eqn.primitive.name if jaxpr is None else eqn.params.get("name", "")
        yield from _functions(jaxpr.eqns) if jaxpr else ()


def _names(segments: Sequence[_Segment]) -> list[str | None]:
    """Return the name of each segment's layer; None for activations and reshapes."""
    names: list[str | None] = []
    prefix, number, taken = "", "0", {*names}
    for segment in segments:
        name = segment.owner
        if name:
            taken = {*names}
            match = re.fullmatch(r"(\D*)(\d.*)", name)
            prefix, number = match.groups() if match else ("", f"_{name}")
        elif segment.mixes:
            kind = "pool" if segment.shrinks else "norm"
            if kind == "pool" and prefix == "C" and number.isdecimal():
                name = f"S{int(number) + 1}"
            elif (name := f"{kind}{number.split('_')[0]}") in (kind, *taken):
                name = f"{kind}{number}"  # conv1_1 and conv1_2 are each followed by a pool
        names.append(name)
    # A pool reduces columns, then rows, perhaps with a copy in between.
    for i, name in enumerate(names):
        following = next((later for later in names[i:] if later), None)
        if i and name is None and following == names[i - 1]:
            names[i] = following
    return names


def _window(within: Dependence) -> tuple[int, int] | None:
    if len(within) != 4:
        return None
    return within[1].size, within[2].size


def _operation(
    parts: Sequence[_Segment], after: Sequence[_Segment], within: Dependence, class_name: str
) -> str:
    """Describe a layer in words; a module without products is called by its class name.

    Args:
      parts: segments of the layer.
      after: segments between the layer and the next one.
      within: dependence of the layer's result on its source.
      class_name: class of the layer's module, or the empty string.
    """
    part, window = parts[-1], _window(within)
    functions = [name for segment in after for name in segment.functions]
    kind = class_name or (_pool(parts, functions) if part.shrinks else "norm")
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
        usual = window[0] if part.shrinks and kind not in ("conv", "local") else 1
        text += f", stride {stride}" if stride != usual and len(within[1].first) > 1 else ""
    text += f", {part.cost.groups} groups" if part.cost.groups > 1 else ""
    return ", ".join([text, *_activation(functions)])


def _pool(parts: Sequence[_Segment], after: Sequence[str]) -> str:
    """Name a pool by the functions that combine its units and, for a mean, that follow."""
    functions = {name for part in parts for name in part.functions}
    for kind, of_kind in _POOLS.items():
        if functions & of_kind:
            return f"{kind} pool"
    divides = {"div", "mul"} & {*functions, *after}
    return "average pool" if divides else "sum pool"


def _activation(functions: Sequence[str]) -> list[str]:
    """Return the activation among functions, if there is one."""
    jitted = [name for name in functions if hasattr(jax.nn, name)]
    return (jitted or [_ACTIVATIONS[name] for name in functions if name in _ACTIVATIONS])[:1]


_POOLS = {"max": {"ge", "max", "reduce_max"}, "min": {"le", "min", "reduce_min"}}
_ACTIVATIONS = {"logistic": "sigmoid", "tanh": "tanh"}
