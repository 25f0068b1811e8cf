"""Every public function of arrays: the same eagerly, jitted, under vmap, and in every setting."""

import inspect
import os
import subprocess
import sys

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import augment, geometry
from jaxcnn.layers import convolution, normalization, padding, pooling

KEY = jax.random.key(3)
NHWC = ("NHWC", "HWIO", "NHWC")
COMPONENTS = np.eye(3, dtype=np.float32)
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)

# Of images [17, 12, 12, 3], float32.
CALLS = {
    "random_crop": lambda x: augment.random_crop(KEY, x, size=8, padding=2, fill=3),
    "center_crop": lambda x: geometry.center_crop(x, size=8),
    "center_crop_or_pad": lambda x: geometry.center_crop_or_pad(x, size=14),
    "views": lambda x: geometry.views(x, size=8, flips=True),
    "horizontal_flip": lambda x: augment.horizontal_flip(KEY, x),
    "affine": lambda x: augment.affine(
        KEY, x, degrees=9, translate=2, scale=0.1, shear=5, squeeze=0.1, fill=3
    ),
    "warp": lambda x: geometry.warp(
        x, np.full((17, 2, 2), [[0.9, 0], [0.1, 0.8]], np.float32), np.ones((17, 2), np.float32)
    ),
    "deslant": geometry.deslant,
    "invert": lambda x: augment.invert(KEY, x, p=0.2),
    "pca_color": lambda x: augment.pca_color(KEY, x, components=COMPONENTS, std=0.1),
    "cutout": lambda x: augment.cutout(KEY, x, size=4, fill=(1, 2, 3)),
    "resize": lambda x: geometry.resize(x, size=20),
    "normalize": lambda x: augment.normalize(x, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    "conv_general_dilated": lambda x: convolution.conv_general_dilated(
        x, KERNEL, (1, 1), "SAME", dimension_numbers=NHWC
    ),
    "store_gradient": lambda x: convolution.store_gradient(x, 3),
    "pad": lambda x: padding.pad(x, ((1, 1), (2, 2)), value=1),
    "pool": lambda x: pooling.pool(x, 0, jnp.add, (3, 3), 2, "SAME"),
    "max_pool": lambda x: pooling.max_pool(x, (3, 3), 2, "SAME"),
    "min_pool": lambda x: pooling.min_pool(x, (3, 3), 2, "FULL"),
    "avg_pool": lambda x: pooling.avg_pool(x, (3, 3), 2, "SAME", count_include_pad=False),
    "lp_pool": lambda x: pooling.lp_pool(x, (3, 3), 2, p=3.0),
    "global_max_pool": pooling.global_max_pool,
    "global_min_pool": pooling.global_min_pool,
    "global_avg_pool": pooling.global_avg_pool,
    "adaptive_max_pool": lambda x: pooling.adaptive_max_pool(x, 5),
    "adaptive_avg_pool": lambda x: pooling.adaptive_avg_pool(x, 5),
    "local_response_norm": lambda x: normalization.caffe_lrn(x, size=3, within_maps=True),
}
# Of types, sizes and arrays of the host alone.
HOST_ONLY = {
    *("color_components", "output_size", "per_dimension", "resolve_padding", "sum_dtype"),
    *("padding_for_output_size", "receptive_field"),
    *("same", "linen_conv"),
}
# Each example draws for itself, so a batch of batches draws otherwise.
RANDOM = {"random_crop", "horizontal_flip", "affine", "invert", "pca_color", "cutout"}
# One of each kind.
BY_DEFAULT = {"random_crop", "resize", "conv_general_dilated", "pad", "max_pool"}


def test_public_functions_are_all_here():
    modules = augment, geometry, convolution, normalization, padding, pooling
    public = {
        name
        for module in modules
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and value.__module__ == module.__name__
    }
    assert public - HOST_ONLY == set(CALLS)


def images(dtype="float32"):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (17, 12, 12, 3)), dtype)


def assert_close(actual, expected, tolerance=1e-5):
    assert actual.dtype == expected.dtype
    helpers.assert_close(actual, expected, tolerance)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in BY_DEFAULT else pytest.mark.slow) for n in CALLS]
)
def test_public_functions_are_the_same_however_called(name):
    function, x = CALLS[name], images()
    eagerly = function(x)
    assert_close(jax.jit(function)(x), eagerly)
    assert_close(jax.jit(function)(x) + 1, eagerly + 1)
    if name not in RANDOM:
        assert_close(jax.vmap(function)(jnp.stack([-x, x]))[1], eagerly)

    def total(x):
        return jnp.sin(function(x) / 256).sum()

    grad = jax.grad(total)(x)
    assert_close(jax.jit(jax.grad(total))(x), grad, 1e-4)
    direction = jnp.cos(x)
    _, slope = jax.jvp(total, (x,), (direction,))
    assert_close(slope, jnp.vdot(grad, direction), 1e-3)


def types_and_sums():
    results = {name: jax.jit(function)(images()) for name, function in CALLS.items()}
    return [
        f"{name} {x.dtype} {np.asarray(x, np.float64).sum():.6g}" for name, x in results.items()
    ]


@pytest.mark.slow
def test_public_functions_are_the_same_under_strict_settings_of_jax():
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ
        | {
            "JAX_ENABLE_X64": "1",
            "JAX_NUMPY_DTYPE_PROMOTION": "strict",
            "JAX_NUMPY_RANK_PROMOTION": "raise",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("float32") == len(CALLS)
    assert done.stdout.splitlines() == types_and_sums()


if __name__ == "__main__":
    print(*types_and_sums(), sep="\n")
