import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.padding import Window, output_size, receptive_field, resolve_padding
from jaxcnn.layers.pooling import avg_pool, max_pool
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.summary.dependence import Interval, identity
from jaxcnn.summary.summarize import summarize
from jaxcnn.summary.trace import Cost, Value, propagate_all


def trace(function, image_shape, **weight_shapes):
    """Return the result of `function(image, **weights)` and its cost."""
    weights = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in weight_shapes.items()
    }
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    # Keyword arguments are flattened in alphabetical order.
    operands = [Value(image_shape, identity(image_shape))]
    operands += [Value(w.shape, weights={name: w.size}) for name, w in sorted(weights.items())]
    jaxpr = jax.make_jaxpr(lambda image, weights: function(image, **weights))(image, weights)
    cost = Cost()
    (result,) = propagate_all(jaxpr.jaxpr, operands, cost)
    return result, cost


def interval(axis, first, last):
    return Interval(axis, np.array(first), np.array(last))


def assert_interval(actual, expected):
    assert actual.axis == expected.axis
    assert actual.first.tolist() == expected.first.tolist()
    assert actual.last.tolist() == expected.last.tolist()


def convolve(image, kernel, bias, padding=1):
    """Convolve [batch, pixels, maps] with [taps, maps, maps] and add a bias."""
    numbers = ("NWC", "WIO", "NWC")
    x = jax.lax.conv_general_dilated(
        image, kernel, (1,), [(padding, padding)], dimension_numbers=numbers
    )
    return x + bias.reshape(1, 1, -1)


SIX_PIXELS = (1, 6, 1)


WEIGHTS = {"kernel": (3, 1, 1), "bias": (1,)}


CONV = interval(1, [0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 5])


POOL = interval(1, [0, 1, 3], [2, 4, 5])


def test_trace_of_a_convolution_is_the_worked_example():
    conv, cost = trace(convolve, SIX_PIXELS, **WEIGHTS)
    assert conv.shape == (1, 6, 1)
    assert_interval(conv.dependence[1], CONV)
    assert conv.dependence[1].size == 3 and conv.dependence[1].stride == 1
    assert conv.fan_in == 3 + 1
    assert cost == Cost(6 * 3, 6 * 3 * 128 * 128, {"conv"}, groups=1)


def test_trace_of_a_pool_after_a_convolution_is_the_worked_example():
    pool, cost = trace(
        lambda x, **weights: avg_pool(convolve(x, **weights), 2), (1, 6, 1), **WEIGHTS
    )
    assert pool.shape == (1, 3, 1)
    assert_interval(pool.dependence[1], POOL)
    assert pool.dependence[1].size == 4 and pool.dependence[1].stride == 2
    assert pool.fan_in == 2 * (3 + 1)
    assert cost.multiply_adds == 6 * 3


def test_trace_of_a_pool_alone_is_the_worked_example():
    pool, cost = trace(lambda x: avg_pool(x, 2), SIX_PIXELS)
    assert_interval(pool.dependence[1], interval(1, [0, 2, 4], [1, 3, 5]))
    assert pool.fan_in == 2 and cost == Cost()


def test_trace_keeps_height_and_width_apart():
    def network(image, kernel):
        x = conv_general_dilated(
            image, kernel, (1, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return max_pool(x, (2, 1))

    result, cost = trace(network, (1, 4, 6, 2), kernel=(3, 2, 2, 5))
    assert result.shape == (1, 1, 3, 5)
    _, rows, columns, maps = result.dependence
    assert_interval(rows, interval(1, [0], [3]))  # rows 0..2 and 1..3
    assert_interval(columns, interval(2, [0, 2, 4], [1, 3, 5]))
    assert_interval(maps, interval(3, [0] * 5, [1] * 5))  # both input maps, for each output map
    assert result.fan_in == 3 * 2 * 2  # a maximum does not change the fan-in
    assert cost.multiply_adds == 2 * 3 * 5 * (3 * 2 * 2)
    assert cost.padded_multiply_adds == 2 * 3 * (3 * 2) * 128 * 128


@pytest.mark.parametrize(
    ("function", "axis", "first", "last", "fan_in"),
    [
        (lambda x: jax.lax.slice_in_dim(x, 1, 6, 2, axis=1), 1, [1, 3, 5], [1, 3, 5], 1),
        (lambda x: x[:, ::-1], 1, [5, 4, 3, 2, 1, 0], [5, 4, 3, 2, 1, 0], 1),
        (lambda x: x * 2, 1, list(range(6)), list(range(6)), 1),
        (lambda x: jnp.concatenate([x[:, 4:], x[:, :2]], 1), 1, [4, 5, 0, 1], [4, 5, 0, 1], 1),
        (lambda x: x.sum(1), None, [0], [5], 6),
        (lambda x: x.transpose(1, 0, 2), 0, list(range(6)), list(range(6)), 1),
        (lambda x: x.reshape(6, 2), 0, list(range(6)), list(range(6)), 1),
        (lambda x: x.reshape(1, 12), None, [0], [5], 1),
        (lambda x: x[:, :5] + x[:, 1:], 1, [0, 1, 2, 3, 4], [1, 2, 3, 4, 5], 2),
    ],
    ids=[
        *("slice", "reverse", "multiply", "concatenate", "sum", "transpose", "reshape", "flatten"),
        "add-neighbours",
    ],
)
def test_propagate_finds_the_pixels_of_each_unit(function, axis, first, last, fan_in):
    result, _ = trace(function, (1, 6, 2))
    assert_interval(result.dependence[1], interval(axis, first, last))
    assert result.fan_in == fan_in


def test_propagate_counts_a_dense_layer():
    result, cost = trace(
        lambda x, kernel, bias: x @ kernel + bias[None], (1, 6), kernel=(6, 4), bias=(4,)
    )
    assert_interval(result.dependence[1], interval(None, [0], [5]))
    assert result.fan_in == 6 + 1
    assert cost == Cost(6 * 4, 128 * 128, {"dot"})


def test_propagate_refuses_an_unknown_operation():
    with pytest.raises(NotImplementedError, match="`sort`"):
        trace(lambda x: jnp.sort(x, axis=1), SIX_PIXELS)


def clipped(field, axis, num_units, size):
    """Return first and last pixel of each unit's field, cut at the borders of the image."""
    first = field.start[axis] + field.strides[axis] * np.arange(num_units)
    return np.maximum(first, 0), np.minimum(first + field.size[axis], size) - 1


SAME_5X5, HALVE = Window(5, padding=2), Window(2, 2)


ALEXNET_POOL, SAME_3X3 = Window(3, 2), Window(3, padding=1)


CEIL_POOL = Window(3, 2, padding=((0, 1), (0, 1)))  # ceil_mode on an even size


NETWORKS = {
    "lenet5": {
        **{"C1": SAME_5X5, "S2": HALVE, "C3": Window(5), "S4": HALVE, "C5": Window(5)},
        **{"F6": Window(1), "output": Window(1)},
    },
    "alexnet": {
        **{"conv1": Window(11, 4, padding=2), "pool1": ALEXNET_POOL},
        **{"conv2": SAME_5X5, "pool2": ALEXNET_POOL},
        **{"conv3": SAME_3X3, "conv4": SAME_3X3, "conv5": SAME_3X3, "pool5": ALEXNET_POOL},
        **{"fc6": Window(6), "fc7": Window(1), "fc8": Window(1)},
    },
    "cuda-convnet-18pct": {
        **{"conv1": SAME_5X5, "pool1": CEIL_POOL, "norm1": SAME_3X3},
        **{"conv2": SAME_5X5, "pool2": CEIL_POOL, "norm2": SAME_3X3},
        **{"conv3": SAME_5X5, "pool3": CEIL_POOL, "fc10": Window(4)},
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_of_a_network_agree_with_padding_arithmetic(name):
    size = IMAGE_SHAPES[name][:2]
    layers = summarize(MODELS[name](), IMAGE_SHAPES[name]).layers
    windows = list(NETWORKS[name].values())
    assert [layer.name for layer in layers] == list(NETWORKS[name])
    outputs = size
    for i, layer in enumerate(layers):
        window = windows[i]
        outputs = output_size(
            outputs, window.kernel_size, strides=window.strides, padding=window.padding
        )
        field = receptive_field(windows[: i + 1], size)
        extents = [clipped(field, axis, outputs[axis], size[axis]) for axis in range(2)]
        largest = tuple(int((last - first).max()) + 1 for first, last in extents)
        assert layer.receptive_field == largest, layer.name


@st.composite
def windows(draw):
    size = draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 2))
    pads = st.integers(0, dilation * (size - 1))
    padding = draw(st.sampled_from(["VALID", "SAME", "SAME_LOWER"]) | st.tuples(pads, pads))
    padding = padding if isinstance(padding, str) else (padding,)
    return Window(size, draw(st.integers(1, 3)), padding, dilation)


def apply(window, is_pool, x):
    if is_pool:
        return max_pool(
            x,
            window.kernel_size,
            window.strides,
            window.padding,
            window_dilation=window.kernel_dilation,
        )
    pads = resolve_padding(
        window.padding,
        window.kernel_size,
        strides=window.strides,
        kernel_dilation=window.kernel_dilation,
        input_size=x.shape[1:2],
    )
    return jax.lax.conv_general_dilated(
        x,
        jnp.ones((window.kernel_size, 1, 1)),
        (window.strides,),
        pads,
        rhs_dilation=(window.kernel_dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(windows(), st.booleans()), min_size=1, max_size=4), st.integers(8, 40))
def test_receptive_fields_of_a_random_stack_agree_with_padding_arithmetic(stack, size):
    try:
        field = receptive_field([window for window, _ in stack], (size,))
    except ValueError:  # a window does not fit
        assume(False)

    def network(x):
        return functools.reduce(lambda x, layer: apply(*layer, x), stack, x)

    try:
        result, _ = trace(network, (1, size, 1))
    except ValueError:  # a window of a pool holds padding only
        assume(False)
    traced = result.dependence[1]
    first = field.start[0] + field.strides[0] * np.arange(result.shape[1])
    last = first + field.size[0] - 1
    inside = (first >= 0) & (last < size)
    np.testing.assert_array_equal(traced.first[inside], first[inside])
    np.testing.assert_array_equal(traced.last[inside], last[inside])
    # A border, including one between two layers, can only make a field smaller.
    assert np.all(traced.first >= first) and np.all(traced.last <= last)
