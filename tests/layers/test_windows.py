"""The derivatives of maxima, minima and means, against those of their slices."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcnn.layers import windows as layers_windows
from jaxcnn.layers.cpu_convolution.lowering import MAX_BAND_CHANNELS
from jaxcnn.layers.padding import pad
from jaxcnn.layers.pooling import avg_pool, max_pool, min_pool
from jaxcnn.layers.windows import reduce_taps, reduce_windows, window_axes

MANY = MAX_BAND_CHANNELS + 1
SYMBOLIC = export.symbolic_shape(f"b, 2, 5, 5, {MANY}")

WINDOWS = {
    "AlexNet": ((1, 7, 9), {"window_shape": (3, 3), "strides": 2}),
    "no overlap": ((2, 4, 6), {"window_shape": (2, 2)}),
    "gaps": ((1, 8, 6), {"window_shape": (2, 1), "strides": (3, 2)}),
    "dilated": ((1, 9, 6), {"window_shape": (3, 2), "strides": (2, 1), "window_dilation": (2, 3)}),
    "padded": (
        (1, 5, 6),
        {"window_shape": (3, 3), "strides": 1, "padding": ((1, 2), (0, 1)), "ceil_mode": True},
    ),
    "more windows than MAX_WINDOWS": ((1, 6, 6), {"window_shape": (3, 4), "strides": 1}),
    "positions of 16 bits": ((1, 182, 180), {"window_shape": (3, 3), "strides": 2}),
    "positions of 32 bits": ((1, 182, 181), {"window_shape": (3, 3), "strides": 2}),
    "line": ((2, 3, 8), {"window_shape": (4,), "strides": 3, "padding": "SAME"}),
    "volume": ((3, 4, 5), {"window_shape": (2, 3, 2), "strides": (1, 2, 2)}),
}


# Windows that tile the padded inputs.
TILES = {
    "no overlap": WINDOWS["no overlap"],
    "padded to tiles": ((2, 4, 5), {"window_shape": (2, 3), "padding": ((0, 0), (1, 0))}),
    "one axis": ((3, 4, 6), {"window_shape": (1, 3)}),
    "whole images": ((2, 3, 5), {"window_shape": (3, 5)}),
    "line": ((2, 3, 8), {"window_shape": (4,)}),
    "volume": ((4, 3, 4), {"window_shape": (2, 3, 2)}),
}


def derivatives(pool, x, tangent, weights):
    outputs, forward = jax.jvp(pool, (x,), (tangent,))
    _, backward = jax.vjp(pool, x)
    _, second = jax.jvp(lambda x: jax.vjp(pool, x)[1](weights)[0], (x,), (tangent,))
    return outputs, forward, backward(weights)[0], second


@pytest.mark.parametrize("pool_fn", [max_pool, min_pool])
@pytest.mark.parametrize("windows", WINDOWS)
def test_derivatives_of_many_channels_are_those_of_few(pool_fn, windows):
    space, arguments = WINDOWS[windows]
    pool = functools.partial(pool_fn, **arguments)
    rng = np.random.default_rng(0)
    # Whole numbers, so that sums are exact and many elements are equal.
    x = rng.integers(0, 4, (*space, 1)).astype(np.float32)
    x.flat[rng.choice(x.size, 5, replace=False)] = [np.nan, np.nan, np.inf, -np.inf, -np.inf]
    outputs = jax.eval_shape(pool, x).shape
    tangent = rng.integers(-9, 9, x.shape).astype(np.float32)
    weights = rng.integers(-9, 9, outputs).astype(np.float32)
    arrays = (x, tangent, weights)
    expected = jax.jit(functools.partial(derivatives, pool))(*arrays)
    wide = [np.concatenate([a] * MANY, axis=-1) for a in arrays]
    actual = jax.jit(functools.partial(derivatives, pool))(*wide)
    chex.assert_trees_all_equal(actual, tuple(jnp.tile(e, MANY) for e in expected))


@pytest.mark.parametrize("windows", WINDOWS)
def test_windows_are_reduced_alike_tap_by_tap(windows):
    space, arguments = WINDOWS[windows]
    x = np.random.default_rng(3).integers(0, 4, (*space, 2)).astype(np.float32)
    x.flat[0] = np.nan
    arguments = {"strides": None, "padding": "VALID", "window_dilation": 1, "ceil_mode": False} | (
        arguments
    )
    axes = window_axes(x, **arguments)
    padded = pad(x, [a.pads for a in axes], value=-np.inf)
    numbers = np.arange(padded.size, dtype=np.int32).reshape(padded.shape)

    def last_of_the_largest(a, b):
        first = (a[0] > b[0]) | jnp.isnan(a[0])
        return jnp.where(first, a[0], b[0]), jnp.where(first, a[1], b[1])

    actual, expected = (
        jax.jit(lambda *arrays, reduce=reduce: reduce(arrays, last_of_the_largest, axes))(
            padded, numbers
        )
        for reduce in (reduce_taps, reduce_windows)
    )
    chex.assert_trees_all_equal(actual, expected)


@pytest.mark.parametrize(("window", "is_one_by_one"), [((4, 4), True), ((1, 17), False)])
def test_at_most_max_taps_are_reduced_one_by_one(window, is_one_by_one):
    x = np.zeros((1, 20, 20, 1), np.float32)
    axes = window_axes(x, window, 1, "VALID", 1, ceil_mode=False)
    taps, halves = (
        str(jax.make_jaxpr(lambda x, reduce=reduce: reduce(x, jnp.maximum, axes))(x))
        for reduce in (reduce_taps, reduce_windows)
    )
    assert (taps != halves) == is_one_by_one


def test_maxima_are_found_one_by_one_on_a_gpu():
    x = jax.ShapeDtypeStruct((1, 7, 7, MANY), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, (3, 3), 2).sum()))
    cuda, tpu = (export.export(gradient, platforms=[name])(x) for name in ("cuda", "tpu"))
    slices = [program.mlir_module().count("stablehlo.slice") for program in (cuda, tpu)]
    assert slices[0] > 2 * 9 >= slices[1]  # of the values and of the positions


def test_gradient_of_many_channels_is_the_same_called_in_every_way():
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.integers(0, 4, (4, 2, 5, 5, MANY)), jnp.float32)
    loss = lambda x: (max_pool(x, (3, 3), 2) ** 2).sum()  # noqa: E731
    gradient = jax.grad(loss)
    expected = jax.jit(gradient)(x)
    chex.assert_trees_all_equal(gradient(x), expected)
    chex.assert_trees_all_equal(jax.jit(jax.vmap(gradient))(x), expected)
    chex.assert_trees_all_equal(jax.lax.map(gradient, x), expected)
    chex.assert_trees_all_equal(jax.grad(jax.checkpoint(lambda x: loss(x)))(x), expected)
    exported = export.export(jax.jit(gradient))(jax.ShapeDtypeStruct(SYMBOLIC, jnp.float32))
    chex.assert_trees_all_equal(exported.call(x), expected)
    half = jax.jit(gradient)(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    chex.assert_trees_all_equal(half.astype(jnp.float32), expected)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_gradient_of_many_channels_is_the_same_on_two_devices(axis_type):
    x = np.random.default_rng(2).integers(0, 4, (4, 5, 5, MANY)).astype(np.float32)
    gradient = jax.grad(lambda x: (max_pool(x, (3, 3), 2) ** 2).sum())
    expected = jax.jit(gradient)(x)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,), devices=jax.devices()[:2])
    images = PartitionSpec("data")
    with jax.set_mesh(mesh):
        shards = jax.device_put(x, NamedSharding(mesh, images))
        chex.assert_trees_all_equal(jax.device_get(jax.jit(gradient)(shards)), expected)
        by_device = jax.shard_map(gradient, in_specs=images, out_specs=images)
        chex.assert_trees_all_equal(jax.device_get(jax.jit(by_device)(shards)), expected)


def test_gradient_of_no_images_is_empty():
    assert jax.grad(lambda x: max_pool(x, (2, 2)).sum())(jnp.zeros((0, 4, 4, MANY))).size == 0


# Windows that overlap, leave pixels over or have gaps.
NO_TILES = {
    "AlexNet": WINDOWS["AlexNet"],
    "one left over": ((1, 5, 7), {"window_shape": (2, 2)}),
    "dilated line": ((2, 3, 4), {"window_shape": (2,), "strides": 1, "window_dilation": 2}),
}


@pytest.mark.parametrize("windows", [*TILES, *NO_TILES])
def test_derivatives_of_means_are_those_of_slices(windows, monkeypatch):
    space, arguments = (TILES | NO_TILES)[windows]
    pool = functools.partial(avg_pool, **arguments)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *space, 2)).astype(np.float32)
    outputs = jax.eval_shape(jax.vmap(pool), x).shape
    tangent, weights = (rng.normal(size=s).astype(np.float32) for s in (x.shape, outputs))
    of_one = functools.partial(derivatives, pool)
    actual = [
        jax.jit(jax.vmap(of_one))(x, tangent, weights),
        jax.lax.map(lambda arrays: of_one(*arrays), (x, tangent, weights)),
        jax.tree.map(lambda *leaves: np.stack(leaves), *map(of_one, x, tangent, weights)),
    ]
    calls = []
    monkeypatch.setattr(
        layers_windows, "_sum_tiles", lambda *a: calls.append(1) or layers_windows._sums(*a)
    )
    expected = jax.jit(jax.vmap(functools.partial(derivatives, pool)))(x, tangent, weights)
    assert bool(calls) == (windows in TILES)
    for found in actual:
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
def test_gradient_of_means_is_the_same_on_two_devices(axis_type):
    x = np.random.default_rng(2).normal(size=(4, 4, 6, 2)).astype(np.float32)
    gradient = jax.grad(lambda x: (avg_pool(x, (2, 2)) ** 2).sum())
    expected = jax.jit(gradient)(x)
    mesh = jax.make_mesh((2,), ("data",), axis_types=(axis_type,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):
        shards = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
        chex.assert_trees_all_close(jax.device_get(jax.jit(gradient)(shards)), expected, rtol=1e-6)
