import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import pooling as linen
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxcnn.layers import pooling
from jaxcnn.layers.padding import resolve_padding


def jitted(pool_fn):
    """Return the function compiled, because the tests take minutes operation by operation."""

    @functools.wraps(pool_fn)
    def run(inputs, *args, **kwargs):
        return jax.jit(lambda x: pool_fn(x, *args, **kwargs))(inputs)

    return run


min_pool = jitted(pooling.min_pool)
max_pool = jitted(pooling.max_pool)
avg_pool = jitted(pooling.avg_pool)
lp_pool = jitted(pooling.lp_pool)
global_min_pool = jitted(pooling.global_min_pool)
global_max_pool = jitted(pooling.global_max_pool)
global_avg_pool = jitted(pooling.global_avg_pool)
adaptive_max_pool = jitted(pooling.adaptive_max_pool)
adaptive_avg_pool = jitted(pooling.adaptive_avg_pool)

POOLS = [min_pool, max_pool, avg_pool, lp_pool]
GRID = jnp.arange(16.0).reshape(4, 4, 1)


def away_from_ties(shape):
    """Return distinct values, half a unit apart and never 0, so that no kink is near."""
    values = np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape)
    return jnp.asarray((values - values.size / 2 + 0.5) / 2, jnp.float32)


def gradient_of(pool_fn, *args, **kwargs):
    """Return the gradient by the inputs of half the sum of the squares of the outputs."""
    return jax.jit(jax.grad(lambda x: (pool_fn(x, *args, **kwargs) ** 2).sum() / 2))


def windows_1d(x, window, stride, pads, dilation, ceil_mode):
    """Return the elements of each window of a list, None for padding, by loops.

    A window of `ceil_mode` may reach past the padding, there it holds "beyond".
    """
    low, high = pads
    padded = [None] * low + list(x) + [None] * high
    windows, start = [], 0
    while True:
        places = [start + dilation * i for i in range(window)]
        fits = places[-1] < len(padded)
        if ceil_mode:  # one more window if less than a stride is missing; all start early enough
            fits = places[-1] - len(padded) < stride - 1 and start < low + len(x)
        if not fits:
            return windows
        windows.append([padded[i] if i < len(padded) else "beyond" for i in places])
        start += stride


def is_element(value):
    return value is not None and not isinstance(value, str)


# Values


def test_the_notebooks_example_without_jit():
    x = np.array([[2, 5], [1, 8]])[..., None]
    assert pooling.min_pool(x, (2, 2)) == 1
    assert pooling.max_pool(x, (2, 2)) == 8
    assert pooling.avg_pool(x.astype(float), (2, 2)) == 4


@pytest.mark.parametrize(
    ("pool_fn", "expected"),
    [
        (min_pool, [[0, 2], [8, 10]]),
        (max_pool, [[5, 7], [13, 15]]),
        (avg_pool, [[2.5, 4.5], [10.5, 12.5]]),
        (functools.partial(lp_pool, p=1), [[10, 18], [42, 50]]),
    ],
)
def test_a_grid_by_eye(pool_fn, expected):
    chex.assert_trees_all_close(pool_fn(GRID, (2, 2))[..., 0], jnp.array(expected, jnp.float32))


def test_strides_dilation_and_padding_by_eye():
    x = jnp.arange(1.0, 8.0)[:, None]  # 1 2 3 4 5 6 7
    cases = [
        ({"strides": 1}, [3, 4, 5, 6, 7]),
        ({"strides": 3}, [3, 6]),
        ({"strides": 2, "window_dilation": 2}, [5, 7]),
        ({"strides": 2, "padding": "SAME"}, [2, 4, 6, 7]),
        ({"strides": 1, "padding": "CAUSAL"}, [1, 2, 3, 4, 5, 6, 7]),
        ({"strides": 1, "padding": "FULL"}, [1, 2, 3, 4, 5, 6, 7, 7, 7]),
        ({"strides": 3, "ceil_mode": True}, [3, 6, 7]),
    ]
    for options, expected in cases:
        pooled = max_pool(x, (3,), **options)[:, 0]
        chex.assert_trees_all_equal(pooled, jnp.array(expected, jnp.float32))


@settings(deadline=None, max_examples=80)
@given(
    pool_name=st.sampled_from(["min", "max", "avg", "avg without padding", "lp"]),
    size=st.integers(1, 9),
    window=st.integers(1, 5),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 2),
    padding=st.sampled_from(["VALID", "SAME", "SAME_LOWER", "FULL", "CAUSAL", 1, ((0, 2),)]),
    ceil_mode=st.booleans(),
)
def test_agrees_with_loops(pool_name, size, window, stride, dilation, padding, ceil_mode):
    pool_fn, reduce_window = {
        "min": (min_pool, lambda w: min(filter(is_element, w))),
        "max": (max_pool, lambda w: max(filter(is_element, w))),
        "avg": (
            avg_pool,
            lambda w: sum(filter(is_element, w)) / sum(v != "beyond" for v in w),
        ),
        "avg without padding": (
            functools.partial(avg_pool, count_include_pad=False),
            lambda w: np.mean(list(filter(is_element, w))),
        ),
        "lp": (
            functools.partial(lp_pool, p=3),
            lambda w: sum(abs(v) ** 3 for v in filter(is_element, w)) ** (1 / 3),
        ),
    }[pool_name]
    x = np.asarray(away_from_ties((size,)))
    pads = resolve_padding(
        padding, window, strides=stride, kernel_dilation=dilation, input_size=(size,)
    )
    windows = windows_1d(x, window, stride, pads[0], dilation, ceil_mode)
    pooled = functools.partial(
        pool_fn, x[:, None], (window,), stride, padding, window_dilation=dilation
    )
    if not windows:
        with pytest.raises(ValueError, match="window spans .* expected at most"):
            pooled(ceil_mode=ceil_mode)
    elif not all(any(map(is_element, w)) for w in windows):
        with pytest.raises(ValueError, match="holds padding only"):
            pooled(ceil_mode=ceil_mode)
    else:
        expected = np.array([reduce_window(w) for w in windows], np.float32)
        chex.assert_trees_all_close(pooled(ceil_mode=ceil_mode)[:, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("padding", ["VALID", "SAME", ((1, 0), (0, 1))])
@pytest.mark.parametrize(("window", "strides"), [((3, 2), (2, 1)), ((3, 3), None)])
def test_agrees_with_linen(window, strides, padding):
    ours = (window, strides, padding)
    theirs = (window, strides or window, padding)  # linen's strides default to 1

    @jax.jit
    def pool_both_ways(x):
        pooled = [max_pool(x, *ours), min_pool(x, *ours)]
        pooled += [avg_pool(x, *ours, count) for count in (True, False)]
        expected = [linen.max_pool(x, *theirs), linen.min_pool(x, *theirs)]
        expected += [linen.avg_pool(x, *theirs, count) for count in (True, False)]
        return pooled, expected

    chex.assert_trees_all_close(*pool_both_ways(away_from_ties((2, 7, 6, 3))), atol=1e-5)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "dilation"),
    [(7, 2, 2, 0, 1), (7, 3, 2, 1, 1), (8, 3, 3, 1, 1), (6, 2, 3, 0, 1), (9, 3, 2, 1, 2)],
)
def test_agrees_with_torch(size, window, stride, padding, dilation, ceil_mode):
    torch = pytest.importorskip("torch")
    x = away_from_ties((2, size, size + 1, 3))
    theirs = torch.tensor(np.moveaxis(np.asarray(x), -1, 1))
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}

    def check(ours, expected):
        chex.assert_trees_all_close(ours, np.moveaxis(expected.numpy(), 1, -1), rtol=1e-5)

    ours = functools.partial(max_pool, x, window, stride, padding, ceil_mode=ceil_mode)
    check(
        ours(window_dilation=dilation),
        torch.nn.functional.max_pool2d(theirs, window, dilation=dilation, **options),
    )
    for count_include_pad in (True, False):
        check(
            avg_pool(x, window, stride, padding, count_include_pad, ceil_mode=ceil_mode),
            torch.nn.functional.avg_pool2d(
                theirs, window, count_include_pad=count_include_pad, **options
            ),
        )
    check(
        lp_pool(x, window, stride, p=2),
        torch.nn.functional.lp_pool2d(theirs, 2.0, window, stride),
    )


@pytest.mark.parametrize("padding", ["VALID", "SAME", "FULL"])
def test_min_pool_is_the_dual_of_max_pool(padding):
    x = away_from_ties((2, 7, 6, 3))
    arguments = ((3, 2), (1, 2), padding)
    chex.assert_trees_all_equal(min_pool(x, *arguments), -max_pool(-x, *arguments))


# Dimensions


@pytest.mark.parametrize("pool_fn", POOLS)
@pytest.mark.parametrize("space", [(6,), (4, 5, 3)])
def test_batch_dimensions_are_pooled_one_by_one(pool_fn, space):
    images = np.asarray(away_from_ties((2, 3, *space, 2)))
    window = (2,) * len(space)
    one = jax.jit(lambda image: pool_fn(image, window))
    one_by_one = np.stack([np.stack([one(image) for image in row]) for row in images])
    chex.assert_trees_all_close(pool_fn(images, window), one_by_one)
    chex.assert_trees_all_close(pool_fn(images[0], 2), one_by_one[0])  # an int: one batch dim
    chex.assert_trees_all_close(jax.vmap(one)(images[0]), one_by_one[0])


def test_channels_are_pooled_one_by_one():
    x = away_from_ties((2, 4, 4, 3))
    by_channel = [max_pool(x[..., c : c + 1], 2) for c in range(3)]
    chex.assert_trees_all_equal(max_pool(x, 2), jnp.concatenate(by_channel, axis=-1))


def test_an_empty_batch_stays_empty():
    chex.assert_shape(avg_pool(jnp.zeros((0, 4, 4, 3)), 2), (0, 2, 2, 3))


# Types, NaN, padding


@pytest.mark.parametrize("pool_fn", POOLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_float_types_are_kept(pool_fn, dtype):
    x = away_from_ties((1, 5, 5, 2))
    pooled = pool_fn(x.astype(dtype), 2, 1, "SAME")
    assert pooled.dtype == dtype
    chex.assert_trees_all_close(
        pooled.astype(jnp.float32), pool_fn(x, 2, 1, "SAME"), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32, jnp.uint32])
def test_integer_types_are_kept_and_padding_never_wins(dtype):
    limits = jnp.iinfo(dtype)
    x = jnp.array([limits.min, limits.max], dtype)[:, None]
    lowest_wins = min_pool(x, (3,), 1, 1)
    highest_wins = max_pool(x, (3,), 1, 1)
    chex.assert_trees_all_equal(lowest_wins, jnp.full((2, 1), limits.min, dtype))
    chex.assert_trees_all_equal(highest_wins, jnp.full((2, 1), limits.max, dtype))
    chex.assert_trees_all_equal(max_pool(x[:1], (3,), 1, 1), x[:1])
    chex.assert_trees_all_equal(min_pool(x[1:], (3,), 1, 1), x[1:])


def test_padding_never_wins_whatever_the_sign():
    x = GRID + 1
    chex.assert_trees_all_equal(min_pool(x, (3, 3), 1, "SAME")[0, 0], x[0, 0])
    chex.assert_trees_all_equal(max_pool(-x, (3, 3), 1, "SAME")[0, 0], -x[0, 0])
    chex.assert_trees_all_equal(max_pool(jnp.full((1, 1), -jnp.inf), (3,), 1, 1)[0, 0], -jnp.inf)


@pytest.mark.parametrize("pool_fn", [avg_pool, lp_pool, adaptive_avg_pool, global_avg_pool])
@pytest.mark.parametrize("dtype", [int, bool])
def test_means_and_norms_of_integers_are_refused(pool_fn, dtype):
    x = jnp.ones((1, 4, 4, 1), dtype)
    with pytest.raises(ValueError, match="expected a float type.*cast them"):
        pool_fn(x) if pool_fn is global_avg_pool else pool_fn(x, 2)


def test_maxima_of_booleans_are_refused():
    with pytest.raises(ValueError, match="inputs are bool; expected a float or an integer type"):
        max_pool(jnp.ones((4, 1), bool), (2,))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_sums_are_held_in_float32(dtype):
    x = jnp.ones((1, 64, 64, 1), dtype)  # a sum of ones in bfloat16 stops at 256
    for pooled in (avg_pool(x, 64), global_avg_pool(x), adaptive_avg_pool(x, 1)):
        chex.assert_trees_all_equal(pooled.ravel(), jnp.ones(1, dtype))
    chex.assert_trees_all_equal(lp_pool(x, 64).ravel(), jnp.full(1, 64, dtype))
    x = (away_from_ties((1, 7, 7, 9)) / 7).astype(dtype)  # reveals rounding between the axes
    chex.assert_trees_all_equal(adaptive_avg_pool(x, 1), avg_pool(x, 7))


@pytest.mark.parametrize("pool_fn", POOLS)
def test_a_window_with_a_nan_gives_nan(pool_fn):
    for position in range(3):
        x = jnp.arange(6.0).at[position].set(jnp.nan)[:, None]
        chex.assert_trees_all_equal(jnp.isnan(pool_fn(x, (3,)))[:, 0], jnp.array([True, False]))


def test_infinities_are_values():
    x = jnp.array([-jnp.inf, 1, jnp.inf])[:, None]
    assert min_pool(x, (3,), 1, 1)[0, 0] == -jnp.inf
    assert max_pool(x, (3,), 1, 1)[-1, 0] == jnp.inf


# Gradients


@pytest.mark.parametrize(
    ("pool_fn", "order"), [(min_pool, 1), (max_pool, 1), (avg_pool, 2), (lp_pool, 2)]
)
def test_gradients_forward_and_backward(pool_fn, order):
    options = {"strides": (2, 1), "padding": "SAME", "window_dilation": (1, 2), "ceil_mode": True}
    f = jax.jit(functools.partial(pool_fn, window_shape=(2, 3), **options))
    check_grads(f, (away_from_ties((4, 5, 1)),), order, atol=0.05, rtol=0.05, eps=1e-2)


def test_gradient_of_another_norm():
    f = jax.jit(functools.partial(lp_pool, window_shape=(2,), p=3.5))
    check_grads(f, (away_from_ties((4, 1)),), order=2, atol=0.05, rtol=0.05, eps=1e-2)


def test_lp_pool_at_zero():
    x = jnp.zeros((3, 1))
    chex.assert_trees_all_equal(gradient_of(lp_pool, (3,))(x), x)
    hessian_of_norm = jax.jit(jax.hessian(lambda x: lp_pool(x[:, None], (3,)).sum()))
    hessian = hessian_of_norm(jnp.array([3.0, 0.0, 4.0]))
    # (I - u u^T) / |x| with u = x / |x|: the zero in the middle is no exception.
    expected = (np.eye(3) - np.outer([0.6, 0, 0.8], [0.6, 0, 0.8])) / 5
    chex.assert_trees_all_close(hessian, expected.astype(np.float32), atol=1e-6)
    at_zero = gradient_of(lp_pool, (2,), p=1)(jnp.array([[0.0], [-1.0]]))  # the norm is 1
    chex.assert_trees_all_equal(at_zero[:, 0], jnp.array([1.0, -1.0]))


def test_the_first_of_equals_takes_the_gradient():
    x = np.array([[1, 2, 2], [2, 2, 1], [2, 0, 2]], np.float32)[..., None]
    expected = np.array([[0, 2, 0], [0, 0, 0], [0, 0, 0]], np.float32)[..., None]
    chex.assert_trees_all_equal(gradient_of(max_pool, (3, 3))(x), expected)
    chex.assert_trees_all_equal(gradient_of(min_pool, (3, 3))(-x), -expected)


@pytest.mark.parametrize("pool_fn", [min_pool, max_pool])
def test_the_first_nan_takes_the_gradient(pool_fn):
    x = np.array([[1, np.nan], [np.nan, 9]], np.float32)[..., None]
    gradient = jax.jit(jax.grad(lambda x: pool_fn(x, (2, 2)).sum()))(x)[..., 0]
    chex.assert_trees_all_equal(gradient, np.array([[0, 1], [0, 0]], np.float32))


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (4, 1, 2)])
def test_ties_agree_with_xla_and_torch(window, stride, padding):
    x = np.random.default_rng(0).integers(0, 3, (4, 8, 8, 3)).astype(np.float32)
    gradient = gradient_of(max_pool, window, stride, padding)(x)
    arguments = ((window,) * 2, (stride,) * 2, ((padding,) * 2,) * 2)
    chex.assert_trees_all_close(gradient, gradient_of(linen.max_pool, *arguments)(x))
    torch = pytest.importorskip("torch")
    theirs = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    torch.nn.functional.max_pool2d(theirs, window, stride, padding).square().sum().backward()
    chex.assert_trees_all_close(gradient, np.moveaxis(theirs.grad.numpy(), 1, -1) / 2)


@pytest.mark.parametrize("pool_fn", POOLS)
def test_gradients_under_jit_and_vmap(pool_fn):
    x = np.asarray(away_from_ties((3, 5, 5, 2)))
    gradient = gradient_of(pool_fn, (3, 3), 2, 1)
    expected = np.stack([gradient(image) for image in x])
    chex.assert_trees_all_close(gradient(x), expected, rtol=1e-5)
    chex.assert_trees_all_close(jax.vmap(gradient)(x), expected, rtol=1e-5)


def test_hessian_of_a_max_is_zero():
    hessian = jax.jit(jax.hessian(lambda x: max_pool(x, (2, 2)).sum()))(away_from_ties((4, 4, 1)))
    chex.assert_trees_all_equal(hessian, jnp.zeros_like(hessian))


# Global and adaptive


def test_global_pools():
    x = np.asarray(away_from_ties((2, 7, 5, 3)))
    chex.assert_trees_all_equal(global_max_pool(x), x.max((1, 2)))
    chex.assert_trees_all_equal(global_min_pool(x), x.min((1, 2)))
    chex.assert_trees_all_close(global_avg_pool(x), x.mean((1, 2)), rtol=1e-5)
    chex.assert_trees_all_equal(global_max_pool(x[0], 2), x[0].max((0, 1)))
    chex.assert_trees_all_equal(global_max_pool(x, 1), x.max(2))


def test_adaptive_bins_by_eye():
    x = jnp.arange(1.0, 8.0)[:, None]  # 1 2 3 4 5 6 7 in three bins: 1 2 3, 3 4 5, 5 6 7
    chex.assert_trees_all_equal(adaptive_max_pool(x, (3,))[:, 0], jnp.array([3.0, 5.0, 7.0]))
    chex.assert_trees_all_close(adaptive_avg_pool(x, (3,))[:, 0], jnp.array([2.0, 4.0, 6.0]))


@settings(deadline=None, max_examples=8)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.tuples(*[st.integers(1, 5)] * 2))
def test_adaptive_pools_agree_with_loops(size, bins):
    x = np.asarray(away_from_ties((*size, 2)))

    def edges(axis, i):
        return slice(
            int(np.floor(i * size[axis] / bins[axis])),
            int(np.ceil((i + 1) * size[axis] / bins[axis])),
        )

    for pool_fn, reduce_bin in ((adaptive_max_pool, np.max), (adaptive_avg_pool, np.mean)):
        expected = np.array(
            [
                [reduce_bin(x[edges(0, i), edges(1, j)], (0, 1)) for j in range(bins[1])]
                for i in range(bins[0])
            ]
        )
        chex.assert_trees_all_close(pool_fn(x, bins), expected, rtol=1e-5)


@pytest.mark.parametrize("bins", [1, 2, (4, 3), 9])
def test_adaptive_pools_agree_with_torch(bins):
    torch = pytest.importorskip("torch")
    x = away_from_ties((2, 8, 7, 3))
    theirs = torch.tensor(np.moveaxis(np.asarray(x), -1, 1))
    for ours, expected in (
        (adaptive_max_pool, torch.nn.functional.adaptive_max_pool2d),
        (adaptive_avg_pool, torch.nn.functional.adaptive_avg_pool2d),
    ):
        chex.assert_trees_all_close(
            ours(x, bins), np.moveaxis(expected(theirs, bins).numpy(), 1, -1), rtol=1e-5
        )


def test_the_adaptive_maximum_keeps_integers_and_the_first_of_equals():
    assert adaptive_max_pool(jnp.ones((1, 4, 1), jnp.uint8), 2).dtype == jnp.uint8
    x = np.array([[0, 1], [1, 0]], np.float32)[..., None]
    gradient = gradient_of(adaptive_max_pool, (1, 1))(x)[..., 0]
    chex.assert_trees_all_equal(gradient, np.array([[0, 1], [0, 0]], np.float32))


# The general function and its errors


def test_pool_takes_any_reduction_and_keeps_the_order():
    x = jnp.arange(1.0, 7.0)[:, None]
    products = pooling.pool(x, 1, jnp.multiply, (3,), 1, "SAME")
    chex.assert_trees_all_close(products[:, 0], jnp.array([2.0, 6, 24, 60, 120, 30]))
    firsts = pooling.pool(GRID, 0, lambda a, b: a, (3, 3), 1)
    chex.assert_trees_all_equal(firsts, GRID[:2, :2])


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((4, 1), (2,), "inputs have shape .* 0 spatial"),
        ((4, 4, 1), ((),), "0 spatial"),
        ((4, 4, 1), ((2, 2, 2),), "3 spatial"),
        ((1, 4, 4, 1), (0,), "window_shape is 0"),
        ((1, 4, 4, 1), (2.0,), "window_shape is 2.0"),
        ((1, 4, 4, 1), (5,), "spans 5 pixels; expected at most 4"),
        ((1, 4, 4, 1), (2, (1, 2, 3)), "strides is"),
        ((1, 4, 4, 1), (2, 0), "strides is 0"),
        ((1, 4, 4, 1), (2, 1, "SMAE"), "padding is 'SMAE'"),
        ((1, 4, 4, 1), (2, 1, 2), "window 0 along axis 1 .size 4. holds padding only"),
        ((1, 4, 4, 1), (2, 1, (0, (0, 2))), "window 4 along axis 2 .size 4. holds padding only"),
        ((1, 0, 4, 1), (2,), "input_size is"),
    ],
)
@pytest.mark.parametrize("pool_fn", POOLS)
def test_bad_arguments_are_refused(pool_fn, shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        pool_fn(np.zeros(shape, np.float32), *arguments)


def test_more_bad_arguments_are_refused():
    image = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match="window_dilation is 0"):
        max_pool(image, 2, window_dilation=0)
    for p in (0.5, jnp.inf):
        with pytest.raises(ValueError, match="expected 1 <= p < infinity"):
            lp_pool(image, 2, p=p)
    with pytest.raises(ValueError, match="4 spatial"):
        global_max_pool(image, 4)
    with pytest.raises(ValueError, match="0 spatial"):
        global_avg_pool(jnp.zeros((4, 1)))
    with pytest.raises(ValueError, match="output_shape is 0"):
        adaptive_max_pool(image, 0)
