"""What each unit of a network sees, and at what cost: read off its trace, nothing being run.

Each traced equation tells three things: which places of the array at the start of a layer its
outputs depend on (`Seen`), how many of them each sums (`Value.links`), and how many multiply-adds
that takes (`Tally`). Where a program differs between platforms, the default is read: XLA's
convolution, not the matrix products that stand in for it on a CPU.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal
from jaxtyping import Int

from jaxcnn.layers.convolution import convolution_p, xla_convolution

_CALLS = ("jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call", "cond")
NOWHERE = (1 << 30, -1)  # the first and last place of a unit that sees none


@dataclasses.dataclass(frozen=True)
class Span:
    """The places seen along one axis of the source: from `first` to `last`, both included.

    Attributes:
      axis: the axis of this array along which they vary, or None if all units see the same.
      first: of each place along that axis, or a single one.
      last: the same.
    """

    axis: int | None
    first: Int[np.ndarray, " places"]
    last: Int[np.ndarray, " places"]

    @property
    def size(self) -> int:
        """How many places are seen by the unit that sees most; at a border it may be fewer."""
        return int((self.last - self.first).max()) + 1

    @property
    def stride(self) -> int:
        """How far the places seen move from one unit to the next."""
        return int(np.diff(self.first).max(initial=1))

    def through(self, axis: int, taps: Int[np.ndarray, "places taps"]) -> Span:
        """The span of an array that takes `taps` along `axis` of this one; -1 lies outside it."""
        if self.axis != axis:
            return self
        first = np.append(self.first, NOWHERE[0])[taps].min(1)
        last = np.append(self.last, NOWHERE[1])[taps].max(1)
        return Span(axis, first, last)

    def moved(self, axes: Mapping[int, int]) -> Span:
        """The span of an array with `axes` (old: new) of this one's, the others run together."""
        if self.axis is not None and self.axis in axes:
            return dataclasses.replace(self, axis=axes[self.axis])
        return Span(None, self.first.min(keepdims=True), self.last.max(keepdims=True))

    def joined(self, other: Span) -> Span:
        """The span of an array made of this one and another, unit by unit."""
        a, b = self, other
        if None not in (a.axis, b.axis) and a.axis != b.axis:
            a, b = a.moved({}), b.moved({})
        axis = a.axis if b.axis is None else b.axis
        return Span(axis, np.minimum(a.first, b.first), np.maximum(a.last, b.last))


Seen = tuple[Span, ...]  # one for each axis of the source


def itself(shape: Sequence[int]) -> Seen:
    """Every unit sees itself."""
    return tuple(Span(axis, np.arange(n), np.arange(n)) for axis, n in enumerate(shape))


def compose(earlier: Seen, later: Seen) -> Seen:
    """What the units of `later` see of the source of `earlier`."""
    spans = []
    for span in earlier:
        if span.axis is not None:
            via = later[span.axis]
            places = [slice(a, b + 1) for a, b in zip(via.first, via.last, strict=True)]
            first = [span.first[s].min(initial=NOWHERE[0]) for s in places]
            last = [span.last[s].max(initial=NOWHERE[1]) for s in places]
            span = Span(via.axis, np.array(first), np.array(last))
        spans.append(span)
    return tuple(spans)


@dataclasses.dataclass(frozen=True)
class Value:
    """An array in the trace.

    Attributes:
      shape: its shape.
      seen: what its units see of the source, or None if it does not depend on the image.
      links: how many units of the source, and biases, each of its units sums, on average.
      weights: the parameters it is made of: name -> size.
    """

    shape: tuple[int, ...]
    seen: Seen | None = None
    links: float = 1
    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Tally:
    """What was met on the way.

    Attributes:
      multiply_adds: products of the image's values with parameters or each other.
      padded_multiply_adds: of the products with parameters, were their inputs and outputs multiples
        of 128, the width of a TPU's matrix unit. That takes a kernel's places one by one, each with
        a sum over the channels.
      kinds: of the products with parameters: "conv", "dot".
      groups: of the convolution.
    """

    multiply_adds: int = 0
    padded_multiply_adds: int = 0
    kinds: set[str] = dataclasses.field(default_factory=set)
    groups: int = 1


def follow(eqn: JaxprEqn, operands: Sequence[Value], tally: Tally) -> list[Value]:
    """What the results of an equation see and are made of; what it costs is added to `tally`.

    Raises:
      NotImplementedError: it is none of the operations that are known here.
    """
    jaxpr = _inner(eqn)
    if jaxpr is not None:
        return _follow_all(jaxpr, operands[-len(jaxpr.invars) :], tally)
    shapes = [shape_of(var) for var in eqn.outvars]
    images = [value for value in operands if value.seen is not None]
    if not images:
        weights = {name: size for value in operands for name, size in value.weights.items()}
        return [Value(shape, weights=weights) for shape in shapes]
    name = eqn.primitive.name
    result = _RULES.get(name, _elementwise)(eqn, operands, shapes[0], tally)
    if len(shapes) > 1 or result is None:
        raise NotImplementedError(f"cannot tell what each result of `{name}` depends on")
    assert result.seen is not None
    # An axis that was repeated holds the same everywhere.
    seen = tuple(
        span.moved({})
        if span.axis is not None and len(span.first) != shapes[0][span.axis]
        else span
        for span in result.seen
    )
    return [dataclasses.replace(result, seen=seen)]


def _inner(eqn: JaxprEqn) -> Jaxpr | None:
    """Return the program within an equation; XLA's own operations where platforms differ."""
    params = eqn.params
    if eqn.primitive is convolution_p:
        avals = (jax.ShapeDtypeStruct(shape_of(var), jnp.float32) for var in eqn.invars)
        return jax.make_jaxpr(functools.partial(xla_convolution, **params))(*avals).jaxpr
    if eqn.primitive.name not in _CALLS:
        return None
    closed = params.get("jaxpr", params.get("call_jaxpr", params.get("branches", (None,))[-1]))
    return getattr(closed, "jaxpr", closed)


def shape_of(atom: Any) -> tuple[int, ...]:
    """The shape of a variable or a constant of a trace."""
    return tuple(atom.aval.shape)


def _follow_all(jaxpr: Jaxpr, operands: Sequence[Value], tally: Tally) -> list[Value]:
    values = dict(zip(jaxpr.invars, operands, strict=True))

    def value(atom: Any) -> Value:
        if isinstance(atom, Literal) or atom not in values:
            return Value(shape_of(atom))
        return values[atom]

    for eqn in jaxpr.eqns:
        results = follow(eqn, [value(atom) for atom in eqn.invars], tally)
        values.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _elementwise(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value | None:
    if eqn.params.keys() & _AXES:
        return None
    for value in operands:
        fits = all(n in (1, m) for n, m in zip(value.shape, shape, strict=False))
        if value.shape and not (fits and len(value.shape) == len(shape)):
            return None
    images = [value for value in operands if value.seen is not None]
    name, weighted = eqn.primitive.name, any(value.weights for value in operands)
    links = max(value.links for value in images)
    if name in ("add", "add_any", "sub"):
        links = sum(value.links for value in images) + weighted  # a bias is a connection, too
    if (name == "mul" and weighted) or name in ("square", "integer_pow"):
        tally.multiply_adds += math.prod(shape)
    return Value(shape, _joined(images), links)


def _joined(values: Sequence[Value]) -> Seen:
    by_axis = zip(*(value.seen for value in values if value.seen is not None), strict=True)
    return tuple(functools.reduce(Span.joined, spans) for spans in by_axis)


def _take(value: Value, shape: tuple[int, ...], taps: Sequence[np.ndarray]) -> Value:
    """`taps` of each axis in turn: [places, taps], or one for each place."""
    seen = value.seen
    for axis, places in enumerate(taps):
        places = places.reshape(len(places), -1)
        seen = tuple(span.through(axis, places) for span in seen or ())
    return Value(shape, seen, value.links)


def _slice(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally) -> Value:
    p = eqn.params
    strides = p["strides"] or (1,) * len(shape)
    ranges = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    return _take(operands[0], shape, [np.arange(*each) for each in ranges])


def _pad(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally) -> Value:
    config = zip(operands[0].shape, shape, eqn.params["padding_config"], strict=True)
    taps = [_within(np.arange(m) - low, n, inner + 1) for n, m, (low, _, inner) in config]
    return _take(operands[0], shape, taps)


def _within(places: np.ndarray, size: int, dilation: int) -> np.ndarray:
    """The same places in an array of `size` that was dilated; -1 for those between and beyond."""
    index, between = np.divmod(places, dilation)
    return np.where((between == 0) & (0 <= index) & (index < size), index, -1)


def _conv(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally) -> Value:
    p, (image, kernel) = eqn.params, operands
    image_axes, kernel_axes, result_axes = p["dimension_numbers"]  # batch, features, space
    taps = [np.arange(n) for n in image.shape]
    for i, axis in enumerate(image_axes[2:]):
        size = kernel.shape[kernel_axes[2 + i]]
        places = np.arange(shape[result_axes[2 + i]])[:, None]
        places = places * p["window_strides"][i] - p["padding"][i][0]
        places = places + np.arange(size) * p["rhs_dilation"][i]
        taps[axis] = _within(places, image.shape[axis], p["lhs_dilation"][i])
    channels = image_axes[1]
    taps[channels] = np.tile(taps[channels], (shape[result_axes[1]], 1))
    order = dict(zip(image_axes, result_axes, strict=True))
    seen = tuple(span.moved(order) for span in _take(image, shape, taps).seen or ())
    if not kernel.weights:  # it copies, as for a locally connected layer
        return Value(shape, seen, image.links)
    # A kernel made of fewer weights than it has entries is zero elsewhere: Table I of LeNet-5.
    links = sum(kernel.weights.values()) / kernel.shape[kernel_axes[0]]
    tally.multiply_adds += round(math.prod(shape) * links)
    outputs, inputs, *window = (kernel.shape[axis] for axis in kernel_axes)
    tally.groups = groups = p["feature_group_count"]
    places = math.prod(shape) // outputs * math.prod(window)
    tally.padded_multiply_adds += groups * places * _padded(inputs) * _padded(outputs // groups)
    tally.kinds.add("conv")
    return Value(shape, seen, links * image.links)


def _padded(size: int, width: int = 128) -> int:
    return -(-size // width) * width


def _dot(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value | None:
    (contracted, batched) = eqn.params["dimension_numbers"]
    side = 0 if operands[0].seen is not None else 1
    image, other = operands[side], operands[1 - side]
    if other.seen is not None:
        return None
    free = [
        [a for a in range(len(value.shape)) if a not in (*contracted[i], *batched[i])]
        for i, value in enumerate(operands)
    ]
    # The result's axes: the batched ones, then what is left of the first and of the second.
    start = len(batched[0]) + (len(free[0]) if side else 0)
    axes = {axis: i for i, axis in enumerate(batched[side])}
    axes |= {axis: start + i for i, axis in enumerate(free[side])}
    terms = math.prod(image.shape[axis] for axis in contracted[side])
    if other.weights:
        tally.multiply_adds += math.prod(shape) * terms
        outputs = math.prod(other.shape[axis] for axis in free[1 - side])
        rows = math.prod(shape) // outputs
        tally.padded_multiply_adds += rows * _padded(terms) * _padded(outputs)
        tally.kinds.add("dot")
    return Value(shape, tuple(span.moved(axes) for span in image.seen or ()), terms * image.links)


def _reduce(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value:
    value, reduced = operands[0], eqn.params["axes"]
    kept = [axis for axis in range(len(value.shape)) if axis not in reduced]
    terms = math.prod(value.shape[axis] for axis in reduced)
    return _moved(value, shape, {axis: i for i, axis in enumerate(kept)}, terms)


def _moved(value: Value, shape: tuple[int, ...], axes: Mapping[int, int], terms: int = 1) -> Value:
    return Value(shape, tuple(span.moved(axes) for span in value.seen or ()), terms * value.links)


def _broadcast(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value:
    return _moved(operands[0], shape, dict(enumerate(eqn.params["broadcast_dimensions"])))


def _transpose(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value:
    axes = {axis: i for i, axis in enumerate(eqn.params["permutation"])}
    return _moved(operands[0], shape, axes)


def _reshape(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value:
    """Axes of size 1 come and go; from the first other one that changes on, all run together."""
    before = [axis for axis, n in enumerate(operands[0].shape) if n != 1]
    after = [axis for axis, n in enumerate(shape) if n != 1]
    pairs = zip(before, after, strict=False)
    same = itertools.takewhile(lambda ab: operands[0].shape[ab[0]] == shape[ab[1]], pairs)
    return _moved(operands[0], shape, dict(same))


def _concatenate(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], tally: Tally
) -> Value | None:
    axis, start, parts = eqn.params["dimension"], 0, []
    for value in operands:
        if value.seen is None:
            return None
        taps = [np.arange(n) for n in value.shape]
        n = value.shape[axis]
        taps[axis] = _within(np.arange(shape[axis]) - start, n, 1)
        parts.append(_take(value, shape, taps))
        start += n
    links = max(value.links for value in operands)
    return Value(shape, _joined(parts), links)


# Parameters of operations that are not elementwise, whatever their shapes.
_AXES = {"axis", "axes", "dimension", "dimensions", "dimension_numbers", "window_dimensions"}

_RULES: dict[str, Callable[..., Value | None]] = {
    "slice": _slice,
    "pad": _pad,
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "reshape": _reshape,
    "squeeze": _reshape,
    "concatenate": _concatenate,
    "reduce_sum": _reduce,
    "reduce_max": _reduce,
    "reduce_min": _reduce,
}
