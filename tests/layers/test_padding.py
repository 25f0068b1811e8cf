import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn.layers.padding import (
    ReceptiveField,
    Window,
    output_size,
    pad,
    padding_for_output_size,
    per_dimension,
    receptive_field,
    resolve_padding,
)

sizes = st.integers(1, 12)
kernels = st.integers(1, 5)
strides = st.integers(1, 4)
dilations = st.integers(1, 3)


def ones_conv(x, kernel, pads, stride=1, dilation=1):
    """Convolve `[height, width]` with `[height, width]`, by lax."""
    return lax.conv_general_dilated(
        x[None, None], kernel[None, None], (stride,) * 2, pads, rhs_dilation=(dilation,) * 2
    )[0, 0]


# resolve_padding


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("VALID", ((0, 0), (0, 0))),
        ("SAME", ((1, 1), (1, 2))),
        ("SAME_LOWER", ((1, 1), (2, 1))),
        ("FULL", ((2, 2), (3, 3))),
        ("same_lower", ((1, 1), (2, 1))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([(0, 1), 2], ((0, 1), (2, 2))),
        (np.array([[0, 1], [2, 3]]), ((0, 1), (2, 3))),
    ],
)
def test_every_way_of_writing_padding(padding, expected):
    assert resolve_padding(padding, (3, 4), input_size=(10, 10)) == expected


def test_dilation_widens_the_window():
    assert resolve_padding("SAME", 3, kernel_dilation=2, input_size=(9,)) == ((2, 2),)
    assert resolve_padding("FULL", 3, kernel_dilation=(1, 2), input_size=(9, 9)) == (
        (2, 2),
        (4, 4),
    )


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(["VALID", "SAME", "SAME_LOWER"]), sizes, kernels, strides, dilations)
def test_strings_agree_with_lax(name, size, kernel, stride, dilation):
    ours = resolve_padding(
        name, kernel, strides=stride, kernel_dilation=dilation, input_size=(size,)
    )
    span = dilation * (kernel - 1) + 1
    assert ours == tuple(lax.padtype_to_pads((size,), (span,), (stride,), name))


def test_causal_agrees_with_linen():
    x = jnp.arange(1.0, 8.0)[None, :, None]  # [batch, time, channels]
    layer = nn.Conv(1, (3,), padding="CAUSAL", kernel_dilation=2)
    params = layer.init(jax.random.key(0), x)
    pads = resolve_padding("CAUSAL", 3, kernel_dilation=2, input_size=(7,))
    assert pads == ((4, 0),)
    explicit = nn.Conv(1, (3,), padding=pads, kernel_dilation=2)
    chex.assert_trees_all_close(explicit.apply(params, x), layer.apply(params, x))


@settings(deadline=None, max_examples=100)
@given(sizes, kernels, dilations)
def test_same_keeps_valid_shrinks_and_full_grows(size, kernel, dilation):
    def size_with(padding):
        return output_size((size,), kernel, padding=padding, kernel_dilation=dilation)[0]

    span = dilation * (kernel - 1) + 1
    assert size_with("SAME") == size_with("SAME_LOWER") == size_with("CAUSAL") == size
    assert size_with("FULL") == size + (span - 1)
    if span <= size:
        assert size_with("VALID") == size - (span - 1)


@pytest.mark.parametrize(("kernel_size", "dilation"), [((3, 2), 1), ((2, 4), 1), ((2, 3), 2)])
def test_full_lets_every_pixel_meet_every_tap_exactly_once(kernel_size, dilation):
    image = jnp.zeros((5, 4))
    pads = resolve_padding("FULL", kernel_size, kernel_dilation=dilation, input_size=image.shape)

    @jax.jit
    def times_met(kernel):  # d/d pixel of the sum of all outputs: number of taps over it
        return jax.grad(lambda x: ones_conv(x, kernel, pads, dilation=dilation).sum())(image)

    num_taps = kernel_size[0] * kernel_size[1]
    single_taps = np.eye(num_taps, dtype=np.float32).reshape(num_taps, *kernel_size)
    for kernel in single_taps:
        chex.assert_trees_all_close(times_met(kernel), np.ones((5, 4), np.float32))
    chex.assert_trees_all_close(times_met(sum(single_taps)), np.full((5, 4), num_taps, np.float32))


def test_valid_lets_a_corner_meet_one_tap_only():
    count = jax.grad(lambda x: ones_conv(x, jnp.ones((3, 3)), ((0, 0), (0, 0))).sum())
    expected = [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
    chex.assert_trees_all_close(count(jnp.zeros((4, 4))), jnp.array(expected, jnp.float32))


@pytest.mark.parametrize(
    ("padding", "message"),
    [
        ("SMAE", "'SMAE' for 2 spatial"),
        ("CAUSAL", "'CAUSAL' for 2 spatial"),
        (-1, "none negative"),
        ([(0, -1), 0], "none negative"),
        ((1, 2, 3), "each of the 2"),
        (((1, 2),), "each of the 2"),
        (((1, 2, 3), 0), "each of the 2"),
        (1.5, "padding is 1.5"),
        ((1.5, 1), "each of the 2"),
    ],
)
def test_bad_padding_is_refused(padding, message):
    with pytest.raises(ValueError, match=message):
        resolve_padding(padding, 3, input_size=(8, 8))


@pytest.mark.parametrize(
    "bad",
    [
        {"input_size": (0, 8)},
        {"input_size": ()},
        {"input_size": 8},
        {"kernel_size": 0},
        {"kernel_size": (3, 3, 3)},
        {"strides": (1, 0)},
        {"kernel_dilation": 1.5},
        {"kernel_dilation": (1.5, 1)},
    ],
)
def test_bad_geometry_is_refused(bad):
    (name,) = bad
    arguments = {"kernel_size": 3, "input_size": (8, 8)} | bad
    for function in (output_size, lambda **kwargs: resolve_padding("SAME", **kwargs)):
        with pytest.raises(ValueError, match=f"{name} is .*; expected"):
            function(**arguments)


def test_per_dimension():
    assert per_dimension("strides", 2, 3) == (2, 2, 2)
    assert per_dimension("strides", np.int64(2), 1) == (2,)
    assert per_dimension("strides", [1, 2], 2) == (1, 2)


# output_size and its inverse


@pytest.mark.parametrize(
    ("size", "kernel", "options", "expected"),
    [
        (32, 5, {}, 28),  # LeNet-5, C1
        (227, 11, {"strides": 4}, 55),  # AlexNet, conv1: 227 pixels, where the paper says 224
        (224, 11, {"strides": 4, "padding": 2}, 55),  # torchvision, also 55
        (55, 3, {"strides": 2}, 27),
        (7, 3, {"kernel_dilation": 2}, 3),
        (6, 3, {"strides": 2}, 2),
        (6, 3, {"strides": 2, "ceil_mode": True}, 3),  # starts 0 2 4
        (6, 2, {"strides": 3, "ceil_mode": True}, 2),  # starts 0 3; a start at 6 is outside
        (2, 3, {"strides": 2, "ceil_mode": True}, 1),
        (1, 2, {"strides": 2, "padding": 1, "ceil_mode": True}, 1),  # 2 is past input and low pad
    ],
)
def test_output_size(size, kernel, options, expected):
    assert output_size((size,), kernel, **options) == (expected,)


@settings(deadline=None, max_examples=50)
@given(
    sizes, kernels, strides, dilations, st.sampled_from(["SAME", "SAME_LOWER", 0, 1, ((2, 0),) * 2])
)
def test_output_size_agrees_with_lax(size, kernel, stride, dilation, padding):
    options = {"strides": stride, "kernel_dilation": dilation}
    shape, kernel_size = (size, size + 3), (kernel, 2)
    pads = resolve_padding(padding, kernel_size, input_size=shape, **options)
    theirs = jax.eval_shape(
        lambda x, w: ones_conv(x, w, pads, stride, dilation),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(kernel_size, jnp.float32),
    ).shape
    if 0 in theirs:
        with pytest.raises(ValueError, match="window spans .* expected at most"):
            output_size(shape, kernel_size, padding=padding, **options)
    else:
        assert output_size(shape, kernel_size, padding=padding, **options) == theirs


def test_padding_for_output_size_gives_the_odd_pixel_to_the_end():
    assert padding_for_output_size(55, (224, 224), 11, strides=4) == ((1, 2), (1, 2))
    assert padding_for_output_size((8, 11), (8, 8), (4, 4)) == ((1, 2), (3, 3))
    assert padding_for_output_size(2, (6,), 3, strides=2) == ((0, 0),)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 15), sizes, kernels, strides, dilations)
def test_padding_for_output_size_is_the_least_there_is(outputs, size, kernel, stride, dilation):
    def total_gives_outputs(total):
        room = size + total - (dilation * (kernel - 1) + 1)
        return room >= 0 and room // stride + 1 == outputs

    options = {"strides": stride, "kernel_dilation": dilation}
    least = next(filter(total_gives_outputs, range(100)), None)
    if least is None:
        with pytest.raises(ValueError, match="output_size is .*; expected at least"):
            padding_for_output_size(outputs, (size,), kernel, **options)
    else:
        ((low, high),) = padding_for_output_size(outputs, (size,), kernel, **options)
        assert low + high == least and 0 <= high - low <= 1
        assert output_size((size,), kernel, padding=((low, high),), **options) == (outputs,)


# receptive_field

ALEXNET = [  # the one-tower net of TF-Slim: a VALID first convolution, then SAME ones
    Window(11, 4),
    Window(3, 2),
    Window(5, padding="SAME"),
    Window(3, 2),
    *[Window(3, padding="SAME")] * 3,
    Window(3, 2),
]
VGG_16 = [
    layer
    for num_convolutions in (2, 2, 3, 3, 3)
    for layer in (*[Window(3, padding="SAME")] * num_convolutions, Window(2, 2))
]


@pytest.mark.parametrize(
    ("layers", "size", "stride", "padding"), [(ALEXNET, 195, 32, 64), (VGG_16, 212, 32, 90)]
)
def test_receptive_fields_published_by_araujo_et_al(layers, size, stride, padding):
    expected = ReceptiveField((size,) * 2, (stride,) * 2, (-padding,) * 2)
    assert receptive_field(layers, (224, 224)) == expected


def test_receptive_field_of_nothing_is_a_pixel():
    assert receptive_field([], (8,)) == ReceptiveField((1,), (1,), (0,))


def test_receptive_field_agrees_with_the_gradient():
    layers = [
        Window((3, 2), padding=((2, 0), 1)),
        Window(2, (2, 3), "SAME"),
        Window((2, 3), 1, "SAME_LOWER", kernel_dilation=(2, 1)),
        Window(3, 2, "SAME"),
    ]
    size = (27, 31)

    def network(x):
        for layer in layers:
            kernel, stride, dilation = (
                per_dimension("", v, 2)
                for v in (layer.kernel_size, layer.strides, layer.kernel_dilation)
            )
            pads = resolve_padding(
                layer.padding, kernel, strides=stride, kernel_dilation=dilation, input_size=x.shape
            )
            x = lax.conv_general_dilated(
                x[None, None], jnp.ones((1, 1, *kernel)), stride, pads, rhs_dilation=dilation
            )[0, 0]
        return x

    seen = np.asarray(jax.jit(jax.jacobian(network))(jnp.zeros(size))) != 0  # [*outputs, *inputs]
    field = receptive_field(layers, size)
    for output in np.ndindex(seen.shape[:2]):
        for axis in range(2):
            first = field.start[axis] + output[axis] * field.strides[axis]
            inside = np.flatnonzero(seen[output].any(axis=1 - axis))
            assert inside[0] == max(first, 0)
            assert inside[-1] == min(first + field.size[axis], size[axis]) - 1


def test_receptive_field_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="spans 5 pixels; expected at most 4"):
        receptive_field([Window(5), Window(5)], (8,))


# pad


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("constant", [9, 9, 1, 2, 3, 9]),
        ("reflect", [3, 2, 1, 2, 3, 2]),
        ("edge", [1, 1, 1, 2, 3, 3]),
        ("circular", [2, 3, 1, 2, 3, 1]),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.uint8])
def test_pad_modes(mode, expected, dtype):
    x = jnp.array([1, 2, 3], dtype)[:, None]
    padded = pad(x, ((2, 1),), mode=mode, value=9)
    chex.assert_trees_all_equal(padded, jnp.array(expected, dtype)[:, None])


NUMPY_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", NUMPY_MODES)
@pytest.mark.parametrize("num_batch_dims", [0, 1, 2])
def test_pad_agrees_with_numpy_and_leaves_batch_and_channels_alone(mode, num_batch_dims):
    x = np.arange(2 * 3 * 4 * 3 * 2.0).reshape((2, 3)[:num_batch_dims] + (4, 3, -1))
    widths = ((0, 0),) * num_batch_dims + ((1, 6), (2, 2), (0, 0))  # 6 is wider than the image
    expected = np.pad(x, widths, mode=NUMPY_MODES[mode])
    chex.assert_trees_all_close(pad(x, ((1, 6), 2), mode=mode), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("mode", "torch_mode"),
    [("reflect", "reflect"), ("edge", "replicate"), ("circular", "circular")],
)
def test_pad_agrees_with_torch(mode, torch_mode):
    torch = pytest.importorskip("torch")
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 6, 1)
    theirs = torch.nn.functional.pad(torch.tensor(x[..., 0])[None], (3, 0, 1, 2), mode=torch_mode)
    chex.assert_trees_all_equal(pad(x, ((1, 2), (3, 0)), mode=mode)[..., 0], theirs[0].numpy())


def test_pad_under_jit_vmap_and_grad():
    x = jnp.arange(12.0).reshape(2, 3, 2, 1)
    for mode in NUMPY_MODES:
        one = jax.jit(functools.partial(pad, padding=((1, 0), 1), mode=mode))
        chex.assert_trees_all_close(jax.vmap(one)(x), pad(x, ((1, 0), 1), mode=mode))
    gradient = jax.grad(lambda image: pad(image, (1,), mode="edge").sum())(jnp.zeros((3, 1)))
    chex.assert_trees_all_close(gradient[:, 0], jnp.array([2.0, 1.0, 2.0]))


def test_pad_reaches_the_ends_of_an_integer_type():
    x = jnp.zeros((1, 1), jnp.uint32)
    assert int(pad(x, (1,), value=2**32 - 1)[0, 0]) == 2**32 - 1


@pytest.mark.parametrize(
    ("padding", "mode", "message"),
    [
        (1, "constant", "padding is 1 for an array of shape"),
        (None, "constant", "padding is None"),
        ("SAME", "constant", "padding is 'SAME'"),
        ((), "constant", r"padding is \(\)"),
        ((1, 1, 1, 1), "constant", "expected an int or a"),
        ((-1, 0), "constant", "none negative"),
        ((1, 1), "wrap", "mode is 'wrap'; expected one of constant, reflect, edge, circular"),
    ],
)
def test_pad_refuses(padding, mode, message):
    with pytest.raises(ValueError, match=message):
        pad(jnp.zeros((2, 4, 4, 1)), padding, mode=mode)


def test_pad_cannot_fill_from_nothing():
    with pytest.raises(ValueError):
        pad(jnp.zeros((0, 1)), (1,), mode="edge")
