"""Cut the trace of a network into segments, and name the layers that they belong to.

A layer is a module or a `jax.named_scope` in the model. Between them, an operation whose units each
depend on several units is a layer, too: a pool if it makes the maps smaller, otherwise a
normalization. Its name is S2 after C1, and pool1 or norm1 after conv1.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Var, jaxpr_as_fun
from jaxtyping import Array, Float

from jaxcnn.summary.dependence import Dependence, identity
from jaxcnn.summary.trace import Cost, Value, inner_jaxpr, propagate, shape_of


def layer_outputs(
    apply: Callable[..., Array], variables: Any, images: Float[Array, "batch height width channels"]
) -> dict[str, Float[Array, "batch ..."]]:
    """Return the output of each layer, in the order of the network.

    The output of a module is the array before the nonlinearity that follows it.

    Args:
      apply: function `(variables, images, train=False) -> logits`.
      variables: variables of the network.
      images: preprocessed images.

    Raises:
      NotImplementedError: the network is not a chain, or has an operation without a rule in
        `trace`.
    """
    closed, leaves, segments = _trace(apply, variables, images)
    outputs = {
        name: segment.output
        for name, segment in zip(name_layers(segments), segments, strict=True)
        if name
    }
    jaxpr = closed.jaxpr.replace(outvars=list(outputs.values()))
    results = jax.jit(jaxpr_as_fun(ClosedJaxpr(jaxpr, closed.consts)))(*leaves, images)
    return dict(zip(outputs, results, strict=True))


def split_at(
    apply: Callable[..., Array],
    variables: Any,
    images: Float[Array, "batch height width channels"],
    layer: str,
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the output of a layer after its nonlinearity, and the network that follows.

    Args:
      apply: function `(variables, images, train=False) -> logits`.
      variables: variables of the network.
      images: preprocessed images.
      layer: a name in `layer_outputs`.

    Returns:
      The output, and a function from such an output to the logits.

    Raises:
      NotImplementedError: as `layer_outputs`.
      KeyError: there is no such layer.
    """
    closed, leaves, segments = _trace(apply, variables, images)
    names = name_layers(segments)
    if layer not in names:
        raise KeyError(layer)
    last = len(names) - 1 - names[::-1].index(layer)
    while last + 1 < len(names) and names[last + 1] is None:
        if segments[last + 1].result.shape != segments[last].result.shape:
            break  # a reshape, not a nonlinearity
        last += 1
    output = segments[last].output
    until = closed.jaxpr.replace(outvars=[output])
    after = closed.jaxpr.replace(
        invars=[*closed.jaxpr.invars, output],
        eqns=[eqn for eqn in closed.jaxpr.eqns if output not in eqn.outvars],
    )
    (x,) = jax.jit(jaxpr_as_fun(ClosedJaxpr(until, closed.consts)))(*leaves, images)

    def rest(x: Array) -> Array:
        return jaxpr_as_fun(ClosedJaxpr(after, closed.consts))(*leaves, images, x)[0]

    return x, rest


def _trace(
    apply: Callable[..., Array], variables: Any, images: Array
) -> tuple[ClosedJaxpr, list[Array], list[Segment]]:
    """Return the program of an evaluation, the arrays of its variables, and its segments."""
    closed = jax.make_jaxpr(functools.partial(apply, train=False))(variables, images)
    leaves = jax.tree.leaves(variables)
    return closed, leaves, cut(closed.jaxpr, [Value(leaf.shape) for leaf in leaves])


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment of the chain: a whole module or, between modules, as few equations as possible.

    Attributes:
      owner: name of the module or of the named scope, or None between modules.
      source_shape: shape of the array that the segment starts from.
      output: variable of the trace that the segment ends in.
      result: array that the segment ends in; its dependence is on the segment's source.
      cost: products in the segment.
      functions: names of the primitives and the jitted functions in the segment, in order.
    """

    owner: str | None
    source_shape: tuple[int, ...]
    output: Var
    result: Value
    cost: Cost
    functions: tuple[str, ...]

    @property
    def dependence(self) -> Dependence:
        """Return the dependence of the result on the source."""
        assert self.result.dependence is not None
        return self.result.dependence

    @property
    def only_reshapes(self) -> bool:
        """Return whether the segment only changes the shape."""
        return {*self.functions} <= {"reshape", "squeeze"}

    @property
    def mixes(self) -> bool:
        """Return whether some unit depends on more than one unit."""
        return not self.only_reshapes and any(each.size > 1 for each in self.dependence)

    @property
    def shrinks(self) -> bool:
        """Return whether the result has fewer units than the source."""
        return math.prod(self.result.shape) < math.prod(self.source_shape)

    @property
    def connections(self) -> int:
        """Return the number of inputs and biases that the result's units sum, over all units."""
        return round(math.prod(self.result.shape) * self.result.fan_in)


def cut(jaxpr: Jaxpr, values: Sequence[Value]) -> list[Segment]:
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
            Segment(
                owner=owner if isinstance(owner, str) else None,
                source_shape=shape,
                output=source,
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


def name_layers(segments: Sequence[Segment]) -> list[str | None]:
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
    # A pool reduces columns, then rows, perhaps with a copy in between; a mean then divides.
    for i, name in enumerate(names):
        if i and name is None:
            following = next((later for later in names[i:] if later), None)
            divides = segments[i - 1].shrinks and segments[i].functions == ("div",)
            if divides or following == names[i - 1]:
                names[i] = names[i - 1]
    return names
