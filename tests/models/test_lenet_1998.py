"""LeNet-5 of the paper of 1998."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from jaxcnn.models import MODELS
from jaxcnn.models.lenet_1998 import (
    BACKGROUND,
    BITMAPS,
    TABLE_I,
    EuclideanRBF,
    LeNet1998,
    TableConv,
    squash,
)
from jaxcnn.training.step import create_state, train_step

# Table I as printed: a row for each map of S2, a column for each map of C3.
PRINTED_TABLE_I = """
X . . . X X X . . X X X X . X X
X X . . . X X X . . X X X X . X
X X X . . . X X X . . X . X X X
. X X X . . X X X X . . X . X X
. . X X X . . X X X X . X X . X
. . . X X X . . X X X X . X X X
"""
CONNECTED = np.array([line.split() for line in PRINTED_TABLE_I.split("\n")[1:-1]]) == "X"  # [6, 16]

# Section II.B.
CONNECTIONS = {
    "C1": 122_304,
    "S2": 5_880,
    "C3": 151_600,
    "S4": 2_000,
    "C5": 48_120,
    "F6": 10_164,
    "output": 840,
}

MODEL = LeNet1998()

# Compile fast, because each program runs a few times at most.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
# Near a digit, between two, and as far from all as with initial parameters.
OUTPUTS = -np.array(
    [
        [0.5, 40, 60, 45, 70, 33, 50, 80, 44, 61],
        [9, 11, 60, 45, 10.5, 33, 50, 80, 44, 61],
        [84, 83, 85, 84.5, 83.5, 84, 84, 86, 84, 84],
    ],
    np.float32,
)
FAN_IN = {"C1": 25, "S2": 4, "S4": 4, "C5": 400, "F6": 120}


def images_and_labels(num_images):
    rng = np.random.default_rng(0)
    images = rng.uniform(BACKGROUND, 1.175, (num_images, 28, 28, 1))
    return jnp.asarray(images, jnp.float32), jnp.asarray(rng.integers(0, 10, num_images))


@pytest.fixture(scope="module")
def state():
    tx = optax.adamw(3e-3, weight_decay=0.1)
    return jit(partial(create_state, MODEL, tx, (28, 28, 1)))(jax.random.key(0))


@pytest.fixture(scope="module")
def params(state):
    return state.params


def layers_and_inputs(params):
    """Return each layer and its input: name -> (function, array)."""
    layers = {}

    def record(next_fun, args, kwargs, context):
        name = context.module.name
        if name is not None:
            layer, variables = context.module.clone(parent=None), {"params": params.get(name, {})}
            layers[name] = (lambda inputs: layer.apply(variables, inputs), args[0])
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(record):
        MODEL.apply({"params": params}, images_and_labels(1)[0])
    return layers


def test_lenet_1998_has_the_connections_of_the_paper(params):
    counts = {}
    for name, (layer, inputs) in layers_and_inputs(params).items():
        jacobian = jit(jax.jacrev(layer))(inputs)  # 0 where an output does not depend on an input
        num_biased = layer(inputs).size if "bias" in params.get(name, {}) else 0
        counts[name] = np.count_nonzero(jacobian) + num_biased
    assert counts == CONNECTIONS
    assert sum(counts.values()) == 340_908


@jit
def connected_maps(params):
    """Return whether a map of C3 [..., 16] is connected to a map of S2 [6, ...]."""
    c3 = TableConv(TABLE_I)
    jacobian = jax.jacrev(lambda s2: c3.apply({"params": params["C3"]}, s2))(jnp.ones((1, 5, 5, 6)))
    return (jacobian[0, 0, 0, :, 0] != 0).any((1, 2)).T


def test_table_conv_is_connected_as_in_table_i(state):
    images, labels = images_and_labels(16)
    np.testing.assert_array_equal(connected_maps(state.params), CONNECTED)
    first, step, losses = state.params["C3"]["kernel"], jit(train_step), []
    for _ in range(20):
        state, metrics = step(state, {"image": images, "label": labels}, jax.random.key(1))
        losses.append(metrics["loss"] / 16)
    assert losses[-1] < 0.7 * losses[0]
    assert np.all(state.params["C3"]["kernel"] != first)
    np.testing.assert_array_equal(connected_maps(state.params), CONNECTED)


def test_lenet_1998_by_hand(params):
    images, _ = images_and_labels(3)
    # Larger than initial parameters, so that every layer affects the result.
    params = jax.tree.map(lambda leaf: 4 * leaf, params)
    c3, weights = (
        np.zeros((5, 5, 6, 16), np.float32),
        iter(np.moveaxis(params["C3"]["kernel"], -1, 0)),
    )
    for target in range(16):
        for source in np.flatnonzero(CONNECTED[:, target]):
            c3[:, :, source, target] = next(weights)

    def f(layer, sums):
        return 1.7159 * jnp.tanh(2 / 3 * (sums + jnp.broadcast_to(layer["bias"], sums.shape)))

    def halve(layer, x):
        sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
        return f(layer, sums * jnp.broadcast_to(layer["coefficient"], sums.shape))

    def conv(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", None, None, numbers)

    @jit
    def reference(params, x):
        x = jnp.full((3, 32, 32, 1), -0.1).at[:, 2:30, 2:30].set(x)
        x = f(params["C1"], conv(x, params["C1"]["kernel"]))
        x = halve(params["S2"], x)
        x = f(params["C3"], conv(x, c3))
        x = halve(params["S4"], x)
        x = f(params["C5"], conv(x, params["C5"]["kernel"])).reshape(3, 120)
        x = f(params["F6"], x @ params["F6"]["kernel"])
        return -((x[:, None] - BITMAPS.reshape(1, 10, 84)) ** 2).sum(-1)

    outputs = jit(MODEL.apply)({"params": params}, images)
    np.testing.assert_allclose(outputs, reference(params, images), rtol=1e-5)
    assert np.ptp(outputs, axis=0).min() > 0.5  # the outputs distinguish the images


def test_squash_by_hand():
    np.testing.assert_allclose(squash(jnp.array([-1.0, 0, 1])), [-1, 0, 1], atol=1e-4)
    np.testing.assert_allclose(squash(jnp.array([-50.0, 50])), [-1.7159, 1.7159], rtol=1e-6)
    # "maximum of its curvature is at +-1" (appendix A)
    second = jax.vmap(jax.grad(jax.grad(squash)))(points := jnp.linspace(0, 2, 2001))
    np.testing.assert_allclose(points[jnp.abs(second).argmax()], 1, atol=0.02)


def test_bitmaps_are_ten_different_drawings():
    assert BITMAPS.shape == (10, 12, 7)
    assert set(BITMAPS.flat) == {-1, 1}
    pixels_apart = (BITMAPS[:, None] != BITMAPS[None]).sum((2, 3))
    assert pixels_apart[~np.eye(10, dtype=bool)].min() >= 10
    seven = BITMAPS[7] > 0
    assert seven[1].all() and not seven[0].any() and not seven[-3:-1, 4:].any()


def test_euclidean_rbf_by_loop():
    drawings = np.random.default_rng(2).uniform(-1.7, 1.7, (4, 84)).astype(np.float32)
    expected = np.zeros((4, 10))
    for n in range(4):
        for digit in range(10):
            for k in range(84):
                expected[n, digit] -= (drawings[n, k] - BITMAPS[digit, k // 7, k % 7]) ** 2
    np.testing.assert_allclose(EuclideanRBF().apply({}, drawings), expected, rtol=1e-5)


def test_euclidean_rbf_chooses_the_nearest_bitmap():
    noise = np.random.default_rng(3).normal(0, 0.3, (10, 84))
    outputs = EuclideanRBF().apply({}, jnp.asarray(BITMAPS.reshape(10, 84) + noise, jnp.float32))
    np.testing.assert_array_equal(outputs.argmax(-1), np.arange(10))


@pytest.mark.parametrize("j", [0.1, 1.0, 10.0])
def test_loss_fn_by_loop(j):
    labels = np.array([0, 4, 2])
    expected = []
    for y, label in zip(-OUTPUTS.astype(np.float64), labels, strict=True):
        competition = np.exp(-j)
        for y_i in y:
            competition += np.exp(-y_i)
        expected.append(y[label] + np.log(competition))
    losses = LeNet1998(j=j).loss_fn(jnp.asarray(OUTPUTS), jnp.asarray(labels))
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


def test_loss_fn_is_float32_for_any_outputs():
    outputs = jnp.asarray(OUTPUTS, jnp.bfloat16)
    labels = jnp.array([0, 4, 2])
    losses = MODEL.loss_fn(outputs, labels)
    assert losses.dtype == jnp.float32
    np.testing.assert_array_equal(losses, MODEL.loss_fn(outputs.astype(jnp.float32), labels))


def test_loss_fn_has_the_right_gradient():
    def loss(outputs):
        return LeNet1998(j=1.0).loss_fn(outputs, jnp.array([0, 4, 2]))

    check_grads(loss, (jnp.asarray(OUTPUTS) / 10,), order=2, modes=["rev"], rtol=1e-2, atol=1e-2)


def test_loss_fn_ignores_far_classes():
    def gradient(y):
        return jax.grad(lambda y: MODEL.loss_fn(-y, jnp.array([0])).sum())(jnp.array([y]))[0]

    far = [80.0, 70.0, *[90.0] * 8]
    np.testing.assert_allclose(gradient(far), [1, *[0] * 9], atol=1e-6)
    near = gradient([5.0, 0.5, *[90.0] * 8])
    assert near[0] > 0.9 and near[1] < -0.5  # descent pulls in the right one


@pytest.mark.parametrize("name", ["lenet5-1998", "lenet5-1998-lecun-uniform"])
def test_lenet_1998_starts_with_uniform_parameters(name):
    params = jit(MODELS[name]().init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    for layer, fan_in in FAN_IN.items():
        limit = 2.4 / fan_in if name == "lenet5-1998" else np.sqrt(3 / fan_in)
        for leaf in jax.tree.leaves(params[layer]):
            assert np.abs(leaf).max() <= limit, layer
        values = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params[layer])])
        assert values.min() < -0.4 * limit and values.max() > 0.4 * limit, layer


def test_table_conv_starts_by_the_maps_seen(params):
    kernel, bias = params["C3"]["kernel"], params["C3"]["bias"]
    first = 0
    for target, maps_seen in enumerate(CONNECTED.sum(0)):
        limit = 2.4 / (25 * maps_seen)
        seen = np.abs(kernel[:, :, first : first + maps_seen])
        assert 0.9 * limit < seen.max() <= limit
        assert np.abs(bias[target]) <= limit
        first += maps_seen


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 32, 32, 1), (1, 28, 28, 3), (1, 784)])
def test_lenet_1998_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"images have shape .* expected \[batch, 28, 28, 1\]"):
        MODEL.init(jax.random.key(0), jnp.zeros(shape))


def test_lenet_1998_refuses_raw_pixels():
    with pytest.raises(TypeError, match="images are uint8; expected floating point for LeNet1998"):
        MODEL.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1), jnp.uint8))


def test_lenet_1998_refuses_other_numbers_of_classes():
    with pytest.raises(ValueError, match="num_classes is 7; expected 10 for LeNet1998"):
        LeNet1998(num_classes=7).init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
