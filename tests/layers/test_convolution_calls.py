"""The convolution compared with lax's own, for each combination of layer and way of calling.

By default every way meets one or two layers; `pytest -m slow` tries all.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcnn.layers.convolution import conv_general_dilated, linen_conv

NHWC = ("NHWC", "HWIO", "NHWC")

# Images, kernel, stride, padding, groups: on both sides of each threshold of
# `cpu_convolution/lowering.py`, `batch_minor.py` and `kernel_gradient.py`.
LAYERS = {
    "1 image": ((1, 8, 9, 4), (3, 3, 4, 6), 1, "SAME", 1),
    "15 images": ((15, 8, 9, 4), (3, 3, 4, 6), 1, "SAME", 1),
    "16 images": ((16, 8, 9, 4), (3, 3, 4, 6), 1, "SAME", 1),
    "17 images": ((17, 9, 8, 1), (5, 5, 1, 6), 1, "SAME", 1),
    "32 images": ((32, 9, 8, 1), (5, 5, 1, 6), 1, "SAME", 1),
    "33 images": ((33, 9, 8, 1), (5, 5, 1, 6), 1, "SAME", 1),
    "32 images, tiles": ((32, 7, 7, 6), (5, 5, 6, 16), 1, "VALID", 1),
    "64 images": ((64, 7, 7, 6), (5, 5, 6, 16), 1, "VALID", 1),
    "100 images": ((100, 6, 6, 3), (3, 3, 3, 3), 1, "SAME", 1),
    "16 channels and features": ((17, 6, 7, 16), (3, 3, 16, 16), 1, "SAME", 1),
    "17 features": ((17, 6, 7, 16), (3, 3, 16, 17), 1, "SAME", 1),
    "17 channels": ((17, 6, 7, 17), (3, 3, 17, 16), 1, "SAME", 1),
    "color": ((17, 8, 8, 3), (5, 5, 3, 64), 1, "SAME", 1),
    "color, 65 features": ((3, 8, 8, 3), (5, 5, 3, 65), 1, "SAME", 1),
    "31 channels": ((17, 6, 6, 31), (3, 3, 31, 32), 1, "SAME", 1),
    "32 channels": ((17, 6, 6, 32), (3, 3, 32, 32), 1, "SAME", 1),
    "33 channels, 5x5": ((17, 6, 6, 33), (5, 5, 33, 8), 1, "SAME", 1),
    "64 channels, 5x5": ((8, 6, 6, 64), (5, 5, 64, 64), 1, "SAME", 1),
    "dense": ((17, 5, 5, 4), (5, 5, 4, 8), 1, "VALID", 1),
    "groups": ((17, 7, 6, 8), (3, 3, 4, 6), 1, "SAME", 2),
    "groups of winograd": ((8, 6, 6, 64), (3, 3, 32, 64), 1, "SAME", 2),
    "stride": ((16, 13, 14, 3), (5, 5, 3, 8), 2, ((2, 2), (1, 0)), 1),
    "stride and groups": ((16, 13, 12, 4), (3, 3, 2, 6), 3, "SAME", 2),
    "stride of many channels": ((16, 9, 9, 5), (3, 3, 5, 4), 2, "SAME", 1),
    "uneven pads": ((17, 7, 8, 2), (4, 3, 2, 5), 1, ((3, 0), (0, 2)), 1),
}

WAYS = {}
JAX_VERSION = tuple(map(int, jax.__version__.split(".")[:2]))


def way(function):
    WAYS[function.__name__] = function
    return function


def loss(conv, images, kernel):
    return jnp.sin(conv(images, kernel)).sum()


def gradients(conv):
    return jax.grad(functools.partial(loss, conv), argnums=(0, 1))


@way
def eager(conv, x, k):
    return conv(x, k)


@way
def jit(conv, x, k):
    return jax.jit(conv)(x, k)


@way
def jit_then_eager(conv, x, k):
    outputs = jax.jit(conv)(x, k)
    return outputs + 1, outputs[:, 1:], outputs.sum(0), outputs.transpose(3, 0, 1, 2)


@way
def jit_of_several_then_jit(conv, x, k):
    results = jax.jit(lambda x, k: {"outputs": conv(x, k), "grads": gradients(conv)(x, k)})(x, k)
    return jax.jit(lambda tree: jax.tree.map(jnp.tanh, tree))(results)


@way
def jit_within_jit(conv, x, k):
    return jax.jit(lambda x, k: jax.jit(conv)(x, k) + 1)(x, k)


@way
def without_jit(conv, x, k):
    with jax.disable_jit():
        return conv(x, k), gradients(conv)(x, k)


@way
def grad(conv, x, k):
    return jax.tree.map(jnp.negative, gradients(conv)(x, k))


@way
def value_and_grad(conv, x, k):
    return jax.jit(jax.value_and_grad(functools.partial(loss, conv), argnums=1))(x, k)[1]


@way
def vjp_then_more(conv, x, k):
    outputs, pullback = jax.vjp(conv, x, k)
    return tuple(2 * gradient for gradient in pullback(jnp.cos(outputs)))


@way
def jvp(conv, x, k):
    return jax.jvp(conv, (x, k), (jnp.cos(x), jnp.sin(k)))


@way
def jvp_of_one(conv, x, k):
    return jax.jit(lambda x, k: jax.jvp(lambda k: conv(x, k), (k,), (jnp.sin(k),)))(x, k)


@way
def linearize(conv, x, k):
    outputs, linear = jax.linearize(conv, x, k)
    return outputs, linear(jnp.cos(x), jnp.sin(k))


@way
def hessian_vector_product(conv, x, k):
    return jax.jvp(gradients(conv), (x, k), (jnp.cos(x), jnp.sin(k)))[1]


@way
def grad_of_grad(conv, x, k):
    def slope(x, k):
        return sum((g**2).mean() for g in gradients(conv)(x, k))

    return jax.grad(slope, argnums=(0, 1))(x, k)


@way
def vmap_over_images(conv, x, k):
    return jax.vmap(conv, (0, None))(jnp.stack([x, x + 1]), k)


@way
def vmap_over_kernels(conv, x, k):
    return jax.vmap(conv, (None, -1), -1)(x, jnp.stack([k, 2 * k, -k], -1))


@way
def vmap_over_both(conv, x, k):
    return jax.vmap(conv, (1, 0))(jnp.stack([x, x + 1], 1), jnp.stack([k, 2 * k]))


@way
def vmap_twice(conv, x, k):
    over_both = jax.vmap(conv)
    images, kernels = jnp.stack([x, x + 1]), jnp.stack([k, 2 * k])
    return (
        jax.vmap(over_both, (0, None))(jnp.stack([images, -images]), kernels),
        jax.vmap(over_both, (None, 0))(images, jnp.stack([kernels, -kernels])),
    )


@way
def vmap_of_grad(conv, x, k):
    images, kernels = jnp.stack([x, x + 1]), jnp.stack([k, 2 * k])
    over_images = jax.vmap(gradients(conv), (0, None))(images, k)
    return over_images, jax.jit(jax.vmap(gradients(conv)))(images, kernels)


@way
def grad_of_vmap(conv, x, k):
    kernels = jnp.stack([k, 2 * k])
    return jax.grad(lambda x, k: jnp.sin(jax.vmap(conv, (None, 0))(x, k)).sum(), (0, 1))(x, kernels)


@way
def vmap_over_cotangents(conv, x, k):
    outputs, pullback = jax.vjp(conv, x, k)
    return jax.vmap(pullback)(jnp.stack([jnp.sin(outputs), jnp.cos(outputs)]))


@way
def scan(conv, x, k):
    def add(total, images):
        return total + conv(images, k), conv(-images, k)

    return lax.scan(add, 0 * conv(x, k), jnp.stack([x, x + 1]))


@way
def grad_of_scan(conv, x, k):
    def total(k):
        add = lambda total, images: (total + loss(conv, images, k), None)  # noqa: E731
        return lax.scan(add, jnp.float32(0), jnp.stack([x, x + 1]))[0]

    return jax.jit(jax.grad(total))(k)


@way
def while_loop_and_cond(conv, x, k):
    def body(carry):
        i, outputs = carry
        return i + 1, lax.cond(i > 0, lambda: outputs - conv(x, k), lambda: conv(x + 1, k))

    return lax.while_loop(lambda carry: carry[0] < 2, body, (0, 0 * conv(x, k)))[1]


@way
def remat(conv, x, k):
    return gradients(jax.checkpoint(conv))(x, k)


@way
def donated(conv, x, k):
    def double(x, k):
        return x * 2, conv(x, k)

    return jax.jit(double, donate_argnums=0)(x + 0, k)


def two_devices():
    return jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))


def by_shard_map(conv, check_vma):
    images = PartitionSpec("data")
    specs = {"in_specs": (images, PartitionSpec()), "out_specs": images}
    return jax.shard_map(conv, mesh=two_devices(), check_vma=check_vma, **specs)


@way
def shard_map(conv, x, k):
    x = jnp.concatenate([x, x + 1])  # an even number
    results = []
    for check_vma in (False, True):
        sharded = by_shard_map(conv, check_vma)
        results.append((sharded(x, k), gradients(sharded)(x, k)))
    return results


@way
def two_devices_under_jit(conv, x, k):
    mesh = two_devices()
    by_image, whole = (
        NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec())
    )
    x = jax.device_put(jnp.concatenate([x, x + 1]), by_image)
    k = jax.device_put(k, whole)

    def everything(x, k):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return conv(x, k), gradients(conv)(x, k)

    eagerly = conv(x, k), gradients(conv)(x, k)
    return eagerly, jax.jit(everything)(x, k)


@way
def exported(conv, x, k):
    program = jax.export.export(jax.jit(gradients(conv)), platforms=("cpu", "cuda"))(x, k)
    return program.call(x, k)


@way
def exported_with_symbolic_batch(conv, x, k):
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype)
    everything = jax.jit(lambda x, k: (conv(x, k), gradients(conv)(x, k)))
    jax.export.export(everything, platforms=("cuda", "tpu"))(images, k)
    return jax.export.export(everything)(images, k).call(x, k)


def compare(
    way, layer, convolutions=(conv_general_dilated, lax.conv_general_dilated), tolerance=None
):
    image_shape, kernel_shape, stride, padding, groups = LAYERS[layer]
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=image_shape), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=kernel_shape) / np.sqrt(kernel_shape[0] * 8), jnp.float32)
    actual, expected = (
        WAYS[way](
            functools.partial(
                conv,
                window_strides=(stride, stride),
                padding=padding,
                dimension_numbers=NHWC,
                feature_group_count=groups,
            ),
            images,
            kernel,
        )
        for conv in convolutions
    )
    if tolerance is None:
        tolerance = 1e-3 if layer == "64 channels, 5x5" else 1e-4  # Winograd's 5x5 costs a digit

    def close(actual, expected):
        assert actual.dtype == expected.dtype and actual.shape == expected.shape
        atol = tolerance * max(1e-9, float(np.abs(expected).max(initial=0)))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)

    jax.tree.map(close, actual, expected)


PAIRS = [
    (way, layer)
    for number, way in enumerate(WAYS)
    for place, layer in enumerate(LAYERS)
    if layer == "16 images" or (number + place) % 48 == 0
]


@pytest.mark.parametrize(("way", "layer"), PAIRS)
def test_conv_general_dilated_equals_lax_however_called(way, layer):
    compare(way, layer)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_conv_general_dilated_equals_lax_in_every_way_for_every_layer(way, layer):
    compare(way, layer)


def in_bfloat16(conv):
    def convolve(x, k, **kwargs):
        # With larger outputs, their rounding would decide the sign of the gradients of `loss`.
        x, k = x.astype(jnp.bfloat16), (k / 16).astype(jnp.bfloat16)
        return conv(x, k, **kwargs).astype(jnp.float32)

    return convolve


BFLOAT16 = [in_bfloat16(conv) for conv in (conv_general_dilated, lax.conv_general_dilated)]


@pytest.mark.parametrize(
    "way", ["eager", "vjp_then_more", "grad_of_grad", "vmap_of_grad", "scan", "exported"]
)
def test_conv_general_dilated_in_bfloat16_equals_lax_however_called(way):
    compare(way, "16 images", BFLOAT16, tolerance=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_conv_general_dilated_in_bfloat16_equals_lax_in_every_way_for_every_layer(way, layer):
    compare(way, layer, BFLOAT16, tolerance=0.02)


class Layer(nn.Module):
    module: Callable[..., Callable[[Array], Array]]
    kwargs: dict[str, Any]

    @nn.compact
    def __call__(self, inputs):
        return self.module(name="conv", **self.kwargs)(inputs)


def layer_of(module):
    """Return a convolution by `module` whose bias depends on the kernel."""

    def conv(x, k, *, window_strides, padding, dimension_numbers, feature_group_count):
        kwargs = {"features": k.shape[3], "kernel_size": k.shape[:2], "padding": padding}
        kwargs |= {"strides": window_strides, "feature_group_count": feature_group_count}
        params = {"conv": {"kernel": k, "bias": k.sum((0, 1, 2))}}
        return Layer(module, kwargs).apply({"params": params}, x)

    return conv


@pytest.mark.parametrize(
    "way", ["grad_of_grad", "vmap_of_grad", "grad_of_scan", "exported", "two_devices_under_jit"]
)
def test_linen_conv_equals_linen_conv_however_called(way):
    compare(way, "16 images", (layer_of(linen_conv), layer_of(nn.Conv)))


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("way", WAYS)
def test_linen_conv_equals_linen_conv_in_every_way_for_every_layer(way, layer):
    compare(way, layer, (layer_of(linen_conv), layer_of(nn.Conv)))


# The bug of JAX that made eager calls wrong, see docs/layout_constraint.md


@pytest.mark.xfail(
    JAX_VERSION >= (0, 10), strict=True, reason="JAX misreads a program that ends in a constraint"
)
def test_jax_reads_the_result_of_a_program_that_ends_in_a_layout_constraint():
    twice = jax.jit(lambda a: with_layout_constraint(a * 2, Layout((1, 2, 0))))
    a = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(twice(a) + 1, 2 * np.asarray(a) + 1)
