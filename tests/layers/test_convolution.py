"""The convolution compared with XLA's, its gradients, and its lowerings."""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import CONVOLUTIONAL, assert_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax import lax

from jaxcnn.distributed import mesh
from jaxcnn.layers.convolution import MAX_STRIDED_CHANNELS, conv_general_dilated
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training.step import create_state, eval_step, train_step

NHWC = ("NHWC", "HWIO", "NHWC")
ours = functools.partial(conv_general_dilated, dimension_numbers=NHWC)
xla = functools.partial(lax.conv_general_dilated, dimension_numbers=NHWC)

# One of each kind: images, kernel, strides, padding, groups. The larger batches are stored
# batch-minor if channels are few, and are no multiple of the images in a chunk of a kernel's
# gradient.
LAYERS = {
    "LeNet-5's C1": ((17, 28, 28, 1), (5, 5, 1, 6), (1, 1), "SAME", 1),
    "LeNet-5's C3": ((17, 14, 14, 6), (5, 5, 6, 16), (1, 1), "VALID", 1),
    "LeNet-5's C1, few images": ((2, 28, 28, 1), (5, 5, 1, 6), (1, 1), "SAME", 1),
    "LeNet-5's C3, few images": ((2, 14, 14, 6), (5, 5, 6, 16), (1, 1), "VALID", 1),
    "LeNet-5's C5": ((2, 5, 5, 16), (5, 5, 16, 120), (1, 1), "VALID", 1),
    "modern C3": ((17, 14, 14, 24), (5, 5, 24, 32), (1, 1), "VALID", 1),
    "AlexNet's conv1": ((2, 63, 67, 3), (11, 11, 3, 8), (4, 4), ((2, 2), (2, 2)), 1),
    "AlexNet's conv2": ((2, 9, 9, 64), (5, 5, 64, 64), (1, 1), "SAME", 1),
    "AlexNet's conv3": ((2, 9, 9, 40), (3, 3, 40, 48), (1, 1), "SAME", 1),
    "AlexNet's conv4 of 2012": ((2, 9, 9, 80), (3, 3, 40, 48), (1, 1), "SAME", 2),
}
IMAGES, KERNEL = (2, 8, 8, 4), (3, 3, 4, 4)


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_agrees_with_xla(image_shape, kernel_shape, strides, padding, groups):
    """Compare the outputs, and both gradients for a gradient of the outputs."""
    images, kernel = normal(image_shape), normal(kernel_shape, seed=1)

    def output_and_gradients(conv):
        def run(images, kernel):
            output, pullback = jax.vjp(
                lambda x, k: conv(x, k, strides, padding, feature_group_count=groups),
                images,
                kernel,
            )
            return output, *pullback(jnp.cos(output))

        return jax.jit(run)(images, kernel)

    actual, expected = output_and_gradients(ours), output_and_gradients(xla)
    for value, expected_value, tolerance in zip(actual, expected, (1e-5, 1e-4, 1e-4), strict=True):
        assert_close(value, expected_value, tolerance)


# Values and gradients


@pytest.mark.parametrize("layer", LAYERS)
def test_conv_general_dilated_equals_xla_for_our_layers(layer):
    assert_agrees_with_xla(*LAYERS[layer])


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_conv_general_dilated_equals_xla_for_any_arguments(data):
    batch, height, width = (data.draw(st.integers(1, most)) for most in (18, 10, 10))
    kernel_size = data.draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    strides = data.draw(st.just((1, 1)) | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    groups = data.draw(st.integers(1, 3))
    most = 40 if strides == (1, 1) else MAX_STRIDED_CHANNELS // groups
    channels, features = (data.draw(st.integers(1, most)) for most in (most, 40))
    # Beyond k - 1, XLA's own gradient reads outside its input on a CPU (openxla/xla#48713).
    pads = st.tuples(*(st.tuples(*[st.integers(0, k - 1)] * 2) for k in kernel_size))
    full = st.just(tuple((k - 1, k - 1) for k in kernel_size))
    padding = data.draw(st.sampled_from(["SAME", "SAME_LOWER", "VALID"]) | full | pads)
    shapes = (batch, height, width, channels * groups), (*kernel_size, channels, features * groups)
    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
    conv = functools.partial(xla, feature_group_count=groups)
    assume(0 not in jax.eval_shape(lambda x, k: conv(x, k, strides, padding), *arrays).shape)
    assert_agrees_with_xla(*shapes, strides, padding, groups)


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "padding"),
    [
        ((0, 8, 8, 3), (3, 3, 3, 4), "SAME"),
        ((2, 8, 8, 0), (3, 3, 0, 4), "SAME"),
        ((2, 8, 8, 3), (3, 3, 3, 0), "SAME"),
        ((2, 3, 8, 3), (5, 5, 3, 4), "VALID"),  # the kernel is higher than the image
        ((2, 3, 3, 3), (5, 5, 3, 4), "VALID"),
        ((2, 8, 8, 3), (3, 3, 3, 4), ((-1, 0), (2, -2))),
    ],
    ids=["no images", "no channels", "no features", "no rows", "no pixels", "cropped"],
)
def test_conv_general_dilated_equals_xla_for_empty_arrays_and_crops(
    image_shape, kernel_shape, padding
):
    assert_agrees_with_xla(image_shape, kernel_shape, (1, 1), padding, 1)


@pytest.mark.parametrize("features", [4, 20])
def test_conv_general_dilated_has_the_second_derivatives_of_xla(features):
    images, kernel = normal((2, 6, 5, 3)), normal((3, 2, 3, features), seed=1)

    def second_derivatives(conv):
        def loss(*arrays):
            return jnp.sin(conv(*arrays, (1, 1), "SAME")).sum()

        def slope(*arrays):
            gradients = jax.grad(loss, argnums=(0, 1))(*arrays)
            return sum((jnp.cos(gradient) ** 2).sum() for gradient in gradients)

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(images, kernel)

    for actual, expected in zip(second_derivatives(ours), second_derivatives(xla), strict=True):
        assert_close(actual, expected, 1e-4)


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        ("LeNet-5's C1", jnp.bfloat16),
        ("LeNet-5's C3", jnp.float16),
        ("LeNet-5's C5", jnp.bfloat16),
        ("AlexNet's conv1", jnp.bfloat16),
        ("AlexNet's conv3", jnp.float16),
    ],
)
def test_conv_general_dilated_of_two_bytes_rounds_sums_of_float32(layer, dtype):
    image_shape, kernel_shape, strides, padding, groups = LAYERS[layer]
    images, kernel = normal(image_shape).astype(dtype), normal(kernel_shape, seed=1).astype(dtype)

    def output_and_gradients(conv, images, kernel):
        convolve = functools.partial(conv, window_strides=strides, padding=padding)
        convolve = functools.partial(convolve, feature_group_count=groups)
        output, pullback = jax.vjp(convolve, images, kernel)
        return output, *pullback(
            jnp.asarray(normal(output.shape, seed=2), dtype).astype(output.dtype)
        )

    run = jax.jit(output_and_gradients, static_argnums=0)
    wide = run(xla, images.astype(np.float32), kernel.astype(np.float32))
    for actual, expected in zip(run(ours, images, kernel), wide, strict=True):
        assert actual.dtype == dtype
        rounding = jnp.finfo(dtype).eps / 2 * abs(expected)
        error = abs(actual.astype(jnp.float32) - expected)
        assert (error <= rounding + 1e-5 * abs(expected).max()).all()


def test_conv_general_dilated_of_two_types_raises_laxs_error():
    images, kernel = normal(IMAGES).astype(jnp.bfloat16), normal(KERNEL)
    with pytest.raises(TypeError, match="same dtypes"):
        ours(images, kernel, (1, 1), "SAME")


# Inside transformations


def test_conv_general_dilated_under_vmap():
    images, kernels = normal((3, 2, 6, 6, 2)), normal((3, 3, 3, 2, 4), seed=1)
    for in_axes in [(0, None), (None, 0), (0, 0)]:
        x = images[0] if in_axes[0] is None else images
        k = kernels[0] if in_axes[1] is None else kernels
        actual, expected = (
            jax.jit(jax.vmap(lambda x, k, conv=conv: conv(x, k, (1, 1), "SAME"), in_axes))(x, k)
            for conv in (ours, xla)
        )
        assert_close(actual, expected, 1e-5)


def test_conv_general_dilated_inside_loops():
    images, kernels = normal((2, 6, 6, 1)), normal((4, 3, 3, 1, 1), seed=1)

    def by_scan(images, kernels):
        def apply(images, kernel):
            return ours(images, kernel, (1, 1), "SAME"), None

        return lax.scan(apply, images, kernels)[0]

    def by_while_loop(images, kernels):
        def apply(carry):
            i, images = carry
            return i + 1, ours(images, kernels[i], (1, 1), "SAME")

        return lax.while_loop(lambda carry: carry[0] < len(kernels), apply, (0, images))[1]

    def unrolled(images, kernels):
        for kernel in kernels:
            images = xla(images, kernel, (1, 1), "SAME")
        return images

    expected = jax.jit(unrolled)(images, kernels)
    assert_close(jax.jit(by_scan)(images, kernels), expected, 1e-5)
    assert_close(jax.jit(by_while_loop)(images, kernels), expected, 1e-5)
    gradient, expected_gradient = (
        jax.jit(jax.grad(lambda *args, run=run: run(*args).sum(), argnums=1))(images, kernels)
        for run in (by_scan, unrolled)
    )
    assert_close(gradient, expected_gradient, 1e-4)


# Lowerings


def exported(model, image_shape, platform, dtype=jnp.float32):
    """Return the training step of a network, as a program for a platform."""
    model = MODELS[model](num_classes=10, dtype=dtype)
    create = functools.partial(create_state, model, optax.sgd(0.1), image_shape)
    state = jax.eval_shape(create, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((16, *image_shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((16,), jnp.int32),
    }

    def step(params, batch):
        state_with_params = state.replace(step=jnp.int32(0), params=params)
        return train_step(state_with_params, batch, jax.random.key(0))[0].params

    return jax.export.export(jax.jit(step), platforms=[platform])(state.params, batch).mlir_module()


# Networks whose layers are of the kinds of other networks.
SIMILAR = {"mlp-1000", "mlp-300-100", "mlp-500-150", "lenet4", "lenet5-tanh", "lenet5-relu"}
SIMILAR |= {"lenet5-1998-lecun-uniform", "cuda-convnet-26pct", "cuda-convnet-19pct"}


def similar_are_slow(names):
    return [pytest.param(n, marks=[pytest.mark.slow] if n in SIMILAR else []) for n in names]


@pytest.mark.parametrize("name", similar_are_slow(CONVOLUTIONAL))
def test_convolutions_on_gpu(name):
    program = exported(name, IMAGE_SHAPES[name], "cuda")
    # One forward, one for the kernel and, except in the first layer, one for the images.
    layers = {"lenet5-modern": 2, "alexnet": 5, "alexnet-32": 5, "alexnet-2012": 5}
    if name.startswith("lenet") and name not in layers:
        assert "stablehlo.convolution" not in program  # all are products
    elif name in ("cuda-convnet-13pct", "cuda-convnet-11pct"):  # their local layers contain some
        assert program.count("stablehlo.convolution") >= 3 * 2 - 1
    else:
        assert program.count("stablehlo.convolution") == 3 * layers.get(name, 3) - 1
    has_blocks = "3x3x48x" in program
    assert has_blocks == (name in ("alexnet", "alexnet-2012"))  # conv1


@pytest.mark.parametrize("name", similar_are_slow(MODELS))
def test_steps_are_exported_for_gpu_and_tpu_from_many_devices(name):
    model, image_shape = MODELS[name](num_classes=10), IMAGE_SHAPES[name]
    create = functools.partial(create_state, model, optax.sgd(0.1), image_shape)
    everywhere, by_image = (
        mesh.replicated(mesh.device_mesh()),
        mesh.batch_sharding(mesh.device_mesh()),
    )
    state = jax.eval_shape(create, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((16, *image_shape), jnp.float32),
        "label": jax.ShapeDtypeStruct((16,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((16,), jnp.bool),
    }

    def both_steps(step, params, batch):
        with jax.sharding.use_abstract_mesh(everywhere.mesh.abstract_mesh):
            current = state.replace(step=step, params=params)
            trained, _ = train_step(current, batch, jax.random.key(0))
            return trained.params, eval_step(current, batch)

    steps = jax.jit(both_steps, in_shardings=(everywhere, everywhere, by_image))
    program = jax.export.export(steps, platforms=["cuda", "tpu"])(state.step, state.params, batch)
    assert program.nr_devices == 2 and program.platforms == ("cuda", "tpu")


def test_conv_general_dilated_is_xlas_on_tpu():
    program = exported("lenet5", IMAGE_SHAPES["lenet5"], "tpu")
    assert program.count("stablehlo.convolution") == 3 * 3 - 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_conv_general_dilated_is_ours_on_cpu(dtype):
    program = exported("lenet5", IMAGE_SHAPES["lenet5"], "cpu", dtype)
    # Only those of the kernel gradients of C1 and C3.
    assert program.count("stablehlo.convolution") == 2


def traced(conv, image_shape, kernel_shape, dtype=jnp.float32, **arguments):
    arguments = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC} | arguments
    arrays = (jax.ShapeDtypeStruct(shape, dtype) for shape in (image_shape, kernel_shape))
    return str(jax.make_jaxpr(functools.partial(conv, **arguments))(*arrays))


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "arguments"),
    [
        ((2, 8, 8, MAX_STRIDED_CHANNELS + 1), (3, 3, 5, 4), {"window_strides": (1, 2)}),
        (IMAGES, KERNEL, {"lhs_dilation": (2, 1), "padding": ((1, 1), (0, 0))}),
        (IMAGES, KERNEL, {"rhs_dilation": (1, 2)}),
        (IMAGES, KERNEL, {"batch_group_count": 2}),
        (IMAGES, KERNEL, {"precision": lax.Precision.HIGHEST}),
        (IMAGES, KERNEL, {"preferred_element_type": jnp.float32}),
        ((2, 4, 8, 8), (4, 4, 3, 3), {"dimension_numbers": None}),
        (IMAGES, KERNEL, {"dimension_numbers": ("NHWC", "HWIO", "NCHW")}),
        (
            (2, 8, 4),
            (3, 4, 4),
            {"dimension_numbers": ("NHC", "HIO", "NHC"), "window_strides": (1,)},
        ),
        (IMAGES, KERNEL, {"padding": ((3, 0), (0, 0))}),
    ],
)
def test_conv_general_dilated_leaves_the_rest_to_xla(image_shape, kernel_shape, arguments):
    expected = traced(lax.conv_general_dilated, image_shape, kernel_shape, **arguments)
    assert traced(conv_general_dilated, image_shape, kernel_shape, **arguments) == expected


# In linen


@pytest.mark.parametrize(
    "arguments",
    [
        {"padding": ((2, 0), (1, 3))},
        {"padding": "CIRCULAR", "mask": np.arange(3 * 3 * 4 * 6).reshape(3, 3, 4, 6) % 2},
        {"strides": 2, "feature_group_count": 2, "use_bias": False, "dtype": jnp.bfloat16},
    ],
)
def test_conv_general_dilated_in_linen(arguments):
    images = normal((2, 3, 7, 8, 4))  # two batch dimensions
    theirs = nn.Conv(6, (3, 3), **arguments)
    ours = nn.Conv(6, (3, 3), **arguments, conv_general_dilated=conv_general_dilated)
    shapes = jax.eval_shape(theirs.init, jax.random.key(0), images)
    chex.assert_trees_all_equal(jax.eval_shape(ours.init, jax.random.key(0), images), shapes)
    variables = jax.tree.map(lambda leaf: normal(leaf.shape), shapes)
    actual, expected = (jax.jit(conv.apply)(variables, images) for conv in (ours, theirs))
    chex.assert_trees_all_equal_dtypes(actual, expected)
    assert_close(actual, expected, 1e-5)
