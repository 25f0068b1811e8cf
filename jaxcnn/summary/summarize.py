"""A network, layer by layer: shapes, parameters, multiply-adds, what a unit sees of the image.

All of it is read off a trace of the model with one image; nothing is run. A layer is a module, or
what `jax.named_scope` names in the model. Between them, an operation whose units see more than one
unit each is a layer too: a pool if it makes the maps smaller, else a normalization. It is called
S2 after C1, and pool1 or norm1 after conv1.
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

from jaxcnn.summary.trace import Seen, Tally, Value, compose, follow, itself, shape_of


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a network, for one image.

    Attributes:
      name: the module's, or one made from the name of the layer before.
      operation: in words: "conv 5x5, stride 4", "pool 2x2", "full".
      window: height and width of the places that a unit sees in the layer before; None for a layer
        of units, and for the one that follows maps and sees them all.
      output_shape: height, width and maps, or the number of units.
      parameters: trainable ones.
      multiply_adds: multiplications, each with its addition; pools, normalizations and activations
        outside of modules are not counted.
      padded_multiply_adds: of its products with parameters, on 128-wide units; see
        `jaxcnn.dependence.Tally`.
      connections: inputs and biases that each unit sums, over all units.
      receptive_field: height and width of what a unit sees of the input, as far as it lies in it.
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
        """How many numbers the layer puts out."""
        return math.prod(self.output_shape)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A network: its layers, and the image as the first of them gets it; that of 1998 is framed."""

    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Those of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Those of all layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def padded_multiply_adds(self) -> int:
        """Those of all layers."""
        return sum(layer.padded_multiply_adds for layer in self.layers)

    @property
    def connections(self) -> int:
        """Those of all layers."""
        return sum(layer.connections for layer in self.layers)


def summarize(model: nn.Module, image_shape: Sequence[int]) -> Summary:
    """Reads a network's layers off a trace of its evaluation.

    The network is to be a chain of layers, each of which sees the one before and nothing else.

    Raises:
      NotImplementedError: it is no chain, or has operations that `jaxcnn.dependence` does not know.
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

    stretches = _stretches(jaxpr, values)
    names = _names(stretches)
    start = next(i for i, name in enumerate(names) if name)  # what comes before is but a frame
    seen = itself(stretches[start].source_shape)
    layers = []
    for name, group in itertools.groupby(range(start, len(names)), key=names.__getitem__):
        parts = [stretches[i] for i in group]
        within = functools.reduce(compose, (part.seen for part in parts))
        seen = compose(seen, within)
        if name:
            last, owned = parts[-1], [part for part in parts if part.owner]
            class_name = classes.get(last.owner, "") if last.owner else ""
            layer = Layer(
                name=name,
                operation=_operation(last, within, class_name),
                window=_window(within),
                output_shape=last.result.shape[1:],
                parameters=parameters[name],
                multiply_adds=sum(part.tally.multiply_adds for part in owned),
                padded_multiply_adds=sum(part.tally.padded_multiply_adds for part in owned),
                connections=sum(part.connections for part in owned),
                receptive_field=(seen[1].size, seen[2].size),
            )
            layers.append(layer)
    summary = Summary(stretches[start].source_shape[1:], tuple(layers))
    if summary.parameters != parameters.total():
        raise NotImplementedError("the network is not a chain of modules, one after the other")
    return summary


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """A piece of the chain, between two arrays that everything passes through.

    That is a whole module or, between modules, as little as possible.
    """

    owner: str | None
    source_shape: tuple[int, ...]
    result: Value
    tally: Tally
    only_reshapes: bool

    @property
    def seen(self) -> Seen:
        """What the units of the result see of the source."""
        assert self.result.seen is not None
        return self.result.seen

    @property
    def mixes(self) -> bool:
        """Whether some unit sees more than one."""
        return not self.only_reshapes and any(span.size > 1 for span in self.seen)

    @property
    def shrinks(self) -> bool:
        """Whether fewer units come out than go in."""
        return math.prod(self.result.shape) < math.prod(self.source_shape)

    @property
    def connections(self) -> int:
        """Inputs and biases that each unit of the result sums, over all units."""
        return round(math.prod(self.result.shape) * self.result.links)


def _stretches(jaxpr: Jaxpr, values: Sequence[Value]) -> list[_Stretch]:
    """The chain from the image, the last argument of `jaxpr`; `values` are the others."""
    known: dict[Any, Value] = dict(zip(jaxpr.invars, values, strict=False))
    source = jaxpr.invars[-1]
    stretches = []
    pieces = itertools.groupby(_pieces(jaxpr), key=lambda piece: piece[0] or piece[1][-1])
    for owner, group in pieces:
        eqns = [eqn for _, piece in group for eqn in piece]
        shape, tally = shape_of(source), Tally()
        known[source] = Value(shape, itself(shape))
        for eqn in eqns:
            operands = [
                known[atom] if isinstance(atom, Var) and atom in known else Value(shape_of(atom))
                for atom in eqn.invars
            ]
            known.update(zip(eqn.outvars, follow(eqn, operands, tally), strict=True))
        source = eqns[-1].outvars[0]
        stretches.append(
            _Stretch(
                owner=owner if isinstance(owner, str) else None,
                source_shape=shape,
                result=known[source],
                tally=tally,
                only_reshapes={eqn.primitive.name for eqn in eqns} <= {"reshape", "squeeze"},
            )
        )
    return stretches


def _pieces(jaxpr: Jaxpr) -> Iterator[tuple[str | None, list[JaxprEqn]]]:
    """Cuts the trace wherever one array alone is all that the rest still needs of the image."""
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
    """The module, or the named scope, right within the model's own."""
    for eqn in piece:
        model, *scopes = str(eqn.source_info.name_stack).split("/")
        for scope in scopes:
            if scope.split(".")[0] != model:  # the model's other methods are `Model.method`
                return scope
    return None


def _names(stretches: Sequence[_Stretch]) -> list[str | None]:
    """The layer that each stretch belongs to; activations and the like belong to none."""
    names: list[str | None] = []
    prefix, number = "", 0
    for stretch in stretches:
        name = stretch.owner
        if match := re.fullmatch(r"(\D*)(\d+)", name or ""):
            prefix, number = match[1], int(match[2])
        if name is None and stretch.mixes:
            if not stretch.shrinks:
                name = f"norm{number}"
            else:
                name = f"S{number + 1}" if prefix == "C" else f"pool{number}"
        names.append(name)
    # A pool goes over columns, then rows, perhaps with a copy in between.
    for i, name in enumerate(names):
        following = next((later for later in names[i:] if later), None)
        if i and name is None and following == names[i - 1]:
            names[i] = following
    return names


def _window(within: Seen) -> tuple[int, int] | None:
    if len(within) != 4:
        return None
    return within[1].size, within[2].size


def _operation(part: _Stretch, within: Seen, class_name: str) -> str:
    """In words; a module without products of its own goes by the name of its class."""
    window = _window(within)
    kind = class_name or ("pool" if part.shrinks else "norm")
    if "conv" in part.tally.kinds:
        kind = "conv"
    elif "dot" in part.tally.kinds:
        kind = "full" if window is None else "local"
    if window == (1, 1) and kind == "norm":
        return f"norm, {within[3].size} maps"
    if window is None or (window == (1, 1) and kind == class_name):
        return kind
    text = f"{kind} {window[0]}x{window[1]}"
    stride = within[1].stride
    usual = window[0] if part.shrinks and kind not in ("conv", "local") else 1
    text += f", stride {stride}" if stride != usual and len(within[1].first) > 1 else ""
    return text + (f", {part.tally.groups} groups" if part.tally.groups > 1 else "")
