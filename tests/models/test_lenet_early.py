"""LeNet-1 and LeNet-4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close, layer_shapes, random_params

from jaxcnn.models import MODELS
from jaxcnn.models.lenet_early import LENET1_TABLE, LENET4_TABLE

# A row for each map of H2, a column for each map of H3.
PRINTED_LENET1_TABLE = """
X X X . X X . . . . . .
. X X X X X . . . . . .
. . . . . . X X X . X X
. . . . . . . X X X X X
"""
IMAGES = np.random.default_rng(0).uniform(-0.1, 1.175, (3, 28, 28, 1)).astype(np.float32)


def dense_kernel(weights, table, maps_in):
    """Return the kernel of a `TableConv` with zeros for the absent connections."""
    kernel = np.zeros((5, 5, maps_in, len(table)), np.float32)
    weights = iter(np.moveaxis(weights, -1, 0))
    for target, maps in enumerate(table):
        for source in maps:
            kernel[:, :, source, target] = next(weights)
    assert next(weights, None) is None
    return kernel


def squash(x):
    return 1.7159 * np.tanh(2 / 3 * x)


def conv(x, layer, kernel=None):
    kernel = layer["kernel"] if kernel is None else kernel
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), (1, 2))
    return squash(np.einsum("nyxmij,ijmf->nyxf", windows, kernel) + layer["bias"])


def halve(x, layer):
    sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return squash(sums * layer["coefficient"] + layer["bias"])


def test_lenet1_table_is_that_of_the_source():
    rows = [line.split() for line in PRINTED_LENET1_TABLE.split("\n")[1:-1]]
    columns = zip(*rows, strict=True)
    assert LENET1_TABLE == tuple(
        tuple(row for row, mark in enumerate(column) if mark == "X") for column in columns
    )
    assert sum(map(len, LENET1_TABLE)) == 20


def test_lenet4_table_has_different_threes_that_use_each_map_alike():
    assert all(len({*maps}) == 3 for maps in LENET4_TABLE)
    assert len({*LENET4_TABLE}) == 16
    assert np.bincount(np.concatenate(LENET4_TABLE)).tolist() == [6] * 8


def test_lenet1_by_hand():
    model = MODELS["lenet1"]()
    params = p = jax.tree.map(np.asarray, random_params(model, (28, 28, 1)))
    x = halve(conv(IMAGES, p["H1"]), p["H2"])
    x = conv(x, p["H3"], dense_kernel(p["H3"]["kernel"], LENET1_TABLE, 4))
    x = halve(x, p["H4"]).reshape(3, 192)
    expected = x @ p["output"]["kernel"] + p["output"]["bias"]
    assert_close(jax.jit(model.apply)({"params": params}, IMAGES), expected)


def test_lenet4_by_hand():
    model = MODELS["lenet4"]()
    params = p = jax.tree.map(np.asarray, random_params(model, (28, 28, 1)))
    x = np.full((3, 32, 32, 1), -0.1, np.float32)
    x[:, 2:30, 2:30] = IMAGES
    pairs = np.stack([conv(x, p["C1"])] * 2, axis=-1)  # two maps of S2 for each of C1
    x = halve(pairs.reshape(3, 28, 28, 8), p["S2"])
    x = conv(x, p["C3"], dense_kernel(p["C3"]["kernel"], LENET4_TABLE, 8))
    x = conv(halve(x, p["S4"]), p["C5"]).reshape(3, 120)
    expected = x @ p["output"]["kernel"] + p["output"]["bias"]
    assert_close(jax.jit(model.apply)({"params": params}, IMAGES), expected)


def test_early_lenets_have_the_shapes_of_the_source():
    assert layer_shapes("lenet1") == dict(
        H1=(24, 24, 4), H2=(12, 12, 4), H3=(8, 8, 12), H4=(4, 4, 12), output=(10,)
    )
    assert layer_shapes("lenet4") == dict(
        C1=(28, 28, 4), S2=(14, 14, 8), C3=(10, 10, 16), S4=(5, 5, 16), C5=(1, 1, 120), output=(10,)
    )


@pytest.mark.parametrize("name", ["lenet1", "lenet4"])
def test_early_lenets_refuse_other_images(name):
    expected = r"have shape .* expected \[batch, 28, 28, channels\] for LeNet"
    for shape in ((28, 28, 1), (1, 32, 32, 1), (1, 16, 16, 1)):
        with pytest.raises(ValueError, match=expected):
            MODELS[name]().init(jax.random.key(0), jnp.zeros(shape))
    with pytest.raises(TypeError, match="images are uint8; expected floating point"):
        MODELS[name]().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1), jnp.uint8))
