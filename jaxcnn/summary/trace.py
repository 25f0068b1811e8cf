"""Compute from a trace the dependence and the cost of each unit of a network. Nothing is run.

A small example: six pixels, a convolution with a kernel of 3 weights and a bias, padded by one
zero at each end, then a pool that averages pairs. For every unit, an `Interval` holds the first and
the last pixel that the unit depends on:

    pixel      0 1 2 3 4 5    first  last
    conv  0    x x              0     1     the first tap lies in the padding
          1    x x x            0     2
          2      x x x          1     3
          3        x x x        2     4
          4          x x x      3     5
          5            x x      4     5     the last tap lies in the padding
    pool  0    x x x            0     2     units 0 and 1 of the convolution
          1      x x x x        1     4     units 2 and 3
          2            x x x    3     5     units 4 and 5

The receptive field of the pool is the size of its largest interval, 4 pixels; at a border it is
smaller. Neighbouring intervals are up to 2 pixels apart, the stride.

`Value.fan_in` counts the terms of the sums. A unit of the convolution has 3 inputs and a bias, 4 in
all. A unit of the pool adds 2 of these units, so that its fan-in is 2 counted from the convolution
and 2 x 4 = 8 counted from the pixels. A tap in the padding counts, as it does in the papers.

`Cost.multiply_adds` counts the products with parameters: 6 units x 3 weights = 18 in the
convolution, none in the pool. A matrix unit of 128 x 128 pads the one input map and the one output
map to 128 each, so that `Cost.padded_multiply_adds` is 18 x 128 x 128.

An image has an axis for the batch, the height, the width and the maps; a `Dependence` holds one
interval for each. `propagate` computes the dependence and the fan-in of an equation's results from
those of its operands. If a program differs between platforms, the default counts: XLA's
convolution, not the matrix products that replace it on a CPU.
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

from jaxcnn.layers.convolution_primitives import convolution_p
from jaxcnn.layers.xla_convolution import xla_convolution
from jaxcnn.summary.dependence import Dependence, Interval

_CALLS = ("jit", "pjit", "closed_call", "checkpoint", "custom_jvp_call", "custom_vjp_call", "cond")


@dataclasses.dataclass(frozen=True)
class Value:
    """An array in the trace.

    Attributes:
      shape: shape of the array.
      dependence: dependence on the source, or None if the array does not depend on the image.
      fan_in: mean number of source units and biases that a unit sums.
      weights: sizes of the parameters that the array is computed from, by name.
    """

    shape: tuple[int, ...]
    dependence: Dependence | None = None
    fan_in: float = 1
    weights: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Cost:
    """The products that a piece of the trace computes.

    Attributes:
      multiply_adds: number of products of image values with parameters or with each other.
      padded_multiply_adds: number of products with parameters if inputs and outputs are padded to
        multiples of 128, the width of a TPU's matrix unit. A convolution then takes one matrix
        product for each position of its kernel.
      kinds: kinds of products with parameters, "conv" or "dot".
      groups: number of feature groups of the convolution.
    """

    multiply_adds: int = 0
    padded_multiply_adds: int = 0
    kinds: set[str] = dataclasses.field(default_factory=set)
    groups: int = 1


def propagate(eqn: JaxprEqn, operands: Sequence[Value], cost: Cost) -> list[Value]:
    """Return the results of an equation and add its products to `cost`.

    Args:
      eqn: equation of a jaxpr.
      operands: arrays that the equation reads, in order.
      cost: sums that the equation's products are added to.

    Raises:
      NotImplementedError: if the operation is unknown.
    """
    jaxpr = inner_jaxpr(eqn)
    if jaxpr is not None:
        return propagate_all(jaxpr, operands[-len(jaxpr.invars) :], cost)
    shapes = [shape_of(var) for var in eqn.outvars]
    images = [value for value in operands if value.dependence is not None]
    if not images:
        weights = {name: size for value in operands for name, size in value.weights.items()}
        return [Value(shape, weights=weights) for shape in shapes]
    name = eqn.primitive.name
    result = _RULES.get(name, _elementwise)(eqn, operands, shapes[0], cost)
    if len(shapes) > 1 or result is None:
        raise NotImplementedError(
            f"the operation is `{name}`; expected one with a rule for the dependence of its "
            "result; add the rule to `_RULES` in jaxcnn/summary/trace.py"
        )
    assert result.dependence is not None
    # Along an axis that was broadcast, all units have the same interval.
    dependence = tuple(
        interval.rename_axes({})
        if interval.axis is not None and len(interval.first) != shapes[0][interval.axis]
        else interval
        for interval in result.dependence
    )
    return [dataclasses.replace(result, dependence=dependence)]


def propagate_all(jaxpr: Jaxpr, operands: Sequence[Value], cost: Cost) -> list[Value]:
    """Return the results of a whole program and add its products to `cost`.

    Args:
      jaxpr: program to read.
      operands: arguments of the program.
      cost: sums that the program's products are added to.

    Raises:
      NotImplementedError: if an operation is unknown.
    """
    values = dict(zip(jaxpr.invars, operands, strict=True))

    def value(atom: Any) -> Value:
        if isinstance(atom, Literal) or atom not in values:
            return Value(shape_of(atom))
        return values[atom]

    for eqn in jaxpr.eqns:
        results = propagate(eqn, [value(atom) for atom in eqn.invars], cost)
        values.update(zip(eqn.outvars, results, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def shape_of(atom: Any) -> tuple[int, ...]:
    """Return the shape of a variable or a constant of a trace."""
    return tuple(atom.aval.shape)


def inner_jaxpr(eqn: JaxprEqn) -> Jaxpr | None:
    """Return the program inside an equation, XLA's where platforms differ, or None."""
    params = eqn.params
    if eqn.primitive is convolution_p:
        avals = (jax.ShapeDtypeStruct(shape_of(var), jnp.float32) for var in eqn.invars)
        return jax.make_jaxpr(functools.partial(xla_convolution, **params))(*avals).jaxpr
    if eqn.primitive.name not in _CALLS:
        return None
    closed = params.get("jaxpr", params.get("call_jaxpr", params.get("branches", (None,))[-1]))
    return getattr(closed, "jaxpr", closed)


# Each rule below returns the result of one kind of operation, or None if it is unknown.


def _elementwise(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost
) -> Value | None:
    if eqn.params.keys() & _AXES:
        return None
    for value in operands:
        fits = all(n in (1, m) for n, m in zip(value.shape, shape, strict=False))
        if value.shape and not (fits and len(value.shape) == len(shape)):
            return None
    images = [value for value in operands if value.dependence is not None]
    name, weighted = eqn.primitive.name, any(value.weights for value in operands)
    fan_in = max(value.fan_in for value in images)
    if name in ("add", "add_any", "sub"):
        fan_in = sum(value.fan_in for value in images) + weighted  # a bias is one more term
    if (name == "mul" and weighted) or name in ("square", "integer_pow"):
        cost.multiply_adds += math.prod(shape)
    return Value(shape, _union(images), fan_in)


def _union(values: Sequence[Value]) -> Dependence:
    dependences = (value.dependence for value in values if value.dependence is not None)
    by_axis = zip(*dependences, strict=True)
    return tuple(functools.reduce(Interval.union, intervals) for intervals in by_axis)


def _gather(value: Value, shape: tuple[int, ...], taps: Sequence[np.ndarray]) -> Value:
    """Combine units along every axis; `taps` holds [units, taps] or [units] for each."""
    dependence = value.dependence
    for axis, indices in enumerate(taps):
        indices = indices.reshape(len(indices), -1)
        dependence = tuple(interval.gather(axis, indices) for interval in dependence or ())
    return Value(shape, dependence, value.fan_in)


def _slice(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    p = eqn.params
    strides = p["strides"] or (1,) * len(shape)
    ranges = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
    return _gather(operands[0], shape, [np.arange(*each) for each in ranges])


def _rev(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    reversed_axes = eqn.params["dimensions"]
    taps = [np.arange(n)[:: -1 if i in reversed_axes else 1] for i, n in enumerate(shape)]
    return _gather(operands[0], shape, taps)


def _pad(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    config = zip(operands[0].shape, shape, eqn.params["padding_config"], strict=True)
    taps = [_undilated(np.arange(m) - low, n, inner + 1) for n, m, (low, _, inner) in config]
    return _gather(operands[0], shape, taps)


def _undilated(indices: np.ndarray, size: int, dilation: int) -> np.ndarray:
    """Map indices into a dilated axis to the axis of length `size`; -1 stands for padding."""
    index, between = np.divmod(indices, dilation)
    return np.where((between == 0) & (0 <= index) & (index < size), index, -1)


def _conv(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    p, (image, kernel) = eqn.params, operands
    image_axes, kernel_axes, result_axes = p["dimension_numbers"]  # batch, features, space
    taps = [np.arange(n) for n in image.shape]
    for i, axis in enumerate(image_axes[2:]):
        size = kernel.shape[kernel_axes[2 + i]]
        indices = np.arange(shape[result_axes[2 + i]])[:, None]
        indices = indices * p["window_strides"][i] - p["padding"][i][0]
        indices = indices + np.arange(size) * p["rhs_dilation"][i]
        taps[axis] = _undilated(indices, image.shape[axis], p["lhs_dilation"][i])
    channels = image_axes[1]
    taps[channels] = np.tile(taps[channels], (shape[result_axes[1]], 1))
    order = dict(zip(image_axes, result_axes, strict=True))
    gathered = _gather(image, shape, taps).dependence or ()
    dependence = tuple(interval.rename_axes(order) for interval in gathered)
    if not kernel.weights:  # the kernel copies patches, as in a locally connected layer
        return Value(shape, dependence, image.fan_in)
    # A kernel with fewer weights than entries is zero elsewhere: Table I of LeNet-5.
    fan_in = sum(kernel.weights.values()) / kernel.shape[kernel_axes[0]]
    cost.multiply_adds += round(math.prod(shape) * fan_in)
    outputs, inputs, *window = (kernel.shape[axis] for axis in kernel_axes)
    cost.groups = groups = p["feature_group_count"]
    rows = math.prod(shape) // outputs * math.prod(window)
    cost.padded_multiply_adds += groups * rows * _padded(inputs) * _padded(outputs // groups)
    cost.kinds.add("conv")
    return Value(shape, dependence, fan_in * image.fan_in)


def _padded(size: int, width: int = 128) -> int:
    return -(-size // width) * width


def _dot(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost
) -> Value | None:
    (contracted, batched) = eqn.params["dimension_numbers"]
    side = 0 if operands[0].dependence is not None else 1
    image, other = operands[side], operands[1 - side]
    if other.dependence is not None:
        return None
    free = [
        [a for a in range(len(value.shape)) if a not in (*contracted[i], *batched[i])]
        for i, value in enumerate(operands)
    ]
    # The result has the batched axes, then the free axes of the first and of the second operand.
    start = len(batched[0]) + (len(free[0]) if side else 0)
    axes = {axis: i for i, axis in enumerate(batched[side])}
    axes |= {axis: start + i for i, axis in enumerate(free[side])}
    terms = math.prod(image.shape[axis] for axis in contracted[side])
    if other.weights:
        cost.multiply_adds += math.prod(shape) * terms
        outputs = math.prod(other.shape[axis] for axis in free[1 - side])
        rows = math.prod(shape) // outputs
        cost.padded_multiply_adds += rows * _padded(terms) * _padded(outputs)
        cost.kinds.add("dot")
    return _with_axes(image, shape, axes, terms)


def _reduce(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    value, reduced = operands[0], eqn.params["axes"]
    kept = [axis for axis in range(len(value.shape)) if axis not in reduced]
    terms = math.prod(value.shape[axis] for axis in reduced)
    return _with_axes(value, shape, {axis: i for i, axis in enumerate(kept)}, terms)


def _with_axes(
    value: Value, shape: tuple[int, ...], axes: Mapping[int, int], terms: int = 1
) -> Value:
    """Rename axes as `Interval.rename_axes` does; each unit sums `terms` units of `value`."""
    dependence = tuple(interval.rename_axes(axes) for interval in value.dependence or ())
    return Value(shape, dependence, terms * value.fan_in)


def _broadcast(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost
) -> Value:
    return _with_axes(operands[0], shape, dict(enumerate(eqn.params["broadcast_dimensions"])))


def _transpose(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost
) -> Value:
    axes = {axis: i for i, axis in enumerate(eqn.params["permutation"])}
    return _with_axes(operands[0], shape, axes)


def _reshape(eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost) -> Value:
    """Ignore axes of size 1; merge all other axes from the first one that changes."""
    before = [axis for axis, n in enumerate(operands[0].shape) if n != 1]
    after = [axis for axis, n in enumerate(shape) if n != 1]
    pairs = zip(before, after, strict=False)
    same = itertools.takewhile(lambda ab: operands[0].shape[ab[0]] == shape[ab[1]], pairs)
    return _with_axes(operands[0], shape, dict(same))


def _concatenate(
    eqn: JaxprEqn, operands: Sequence[Value], shape: tuple[int, ...], cost: Cost
) -> Value | None:
    axis, start, parts = eqn.params["dimension"], 0, []
    for value in operands:
        if value.dependence is None:
            return None
        taps = [np.arange(n) for n in value.shape]
        n = value.shape[axis]
        taps[axis] = _undilated(np.arange(shape[axis]) - start, n, 1)
        parts.append(_gather(value, shape, taps))
        start += n
    fan_in = max(value.fan_in for value in operands)
    return Value(shape, _union(parts), fan_in)


# An operation with one of these parameters is not elementwise, whatever its shapes.
_AXES = {"axis", "axes", "dimension", "dimensions", "dimension_numbers", "window_dimensions"}

_RULES: dict[str, Callable[..., Value | None]] = {
    "slice": _slice,
    "rev": _rev,
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
