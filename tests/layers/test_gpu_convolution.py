"""The convolution for GPUs, run on a CPU and compared with XLA's."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxcnn.layers import gpu_convolution
from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.cpu_convolution.geometry import Geometry
from jaxcnn.layers.xla_convolution import xla_convolution

# images, channels, features, geometry
LAYERS = {
    "LeNet-5's C1": (3, 1, 6, Geometry((28, 28), (5, 5), (1, 1), ((2, 2), (2, 2)), 1)),
    "LeNet-5's C3": (3, 6, 16, Geometry((14, 14), (5, 5), (1, 1), ((0, 0), (0, 0)), 1)),
    "LeNet-5's C5": (3, 16, 120, Geometry((5, 5), (5, 5), (1, 1), ((0, 0), (0, 0)), 1)),
    "AlexNet's conv1": (2, 3, 8, Geometry((63, 67), (11, 11), (4, 4), ((2, 2), (2, 2)), 1)),
    "AlexNet's conv1, uneven": (2, 3, 8, Geometry((61, 60), (11, 7), (4, 4), ((1, 3), (0, 2)), 1)),
    "few channels in a block": (2, 1, 4, Geometry((9, 8), (3, 3), (2, 2), ((1, 1), (1, 1)), 1)),
    "AlexNet's conv2 of 2012": (2, 24, 32, Geometry((9, 9), (5, 5), (1, 1), ((2, 2), (2, 2)), 2)),
    "narrow groups": (2, 4, 4, Geometry((6, 6), (6, 6), (1, 1), ((0, 0), (0, 0)), 2)),
}


def operands(num_images, channels, features, geometry, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(num_images, *geometry.image_size, channels))
    kernel = rng.normal(size=(*geometry.kernel_size, channels // geometry.groups, features))
    return jnp.asarray(images, dtype), jnp.asarray(kernel, dtype)


@functools.partial(jax.jit, static_argnums=(0, 3))
def outputs_and_gradients(convolve, images, kernel, geometry):
    outputs, pullback = jax.vjp(functools.partial(convolve, geometry=geometry), images, kernel)
    return outputs, *pullback(jnp.cos(outputs))


def program(convolve, images, kernel, geometry):
    return outputs_and_gradients.lower(convolve, images, kernel, geometry).as_text()


@pytest.mark.parametrize("layer", LAYERS)
def test_convolution_and_gradients_equal_xlas_for_our_layers(layer):
    *shapes, geometry = LAYERS[layer]
    arrays = operands(*shapes, geometry)
    actual, expected = (
        outputs_and_gradients(convolve, *arrays, geometry)
        for convolve in (gpu_convolution.convolution, xla_convolution)
    )
    for value, expected_value, tolerance in zip(actual, expected, (1e-5, 1e-4, 1e-4), strict=True):
        assert_close(value, expected_value, tolerance)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_convolution_equals_xlas_for_any_geometry(data):
    two = lambda least, most: data.draw(st.tuples(*[st.integers(least, most)] * 2))  # noqa: E731
    image_size, kernel_size, strides = two(1, 12), two(1, 7), two(1, 5)
    groups = data.draw(st.integers(1, 2))
    pads = tuple(
        data.draw(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1))) for k in kernel_size
    )
    geometry = Geometry(image_size, kernel_size, strides, pads, groups)
    assume(min(geometry.output_size) > 0)
    channels, features = (data.draw(st.integers(1, 20)) * groups for _ in range(2))
    arrays = operands(2, channels, features, geometry)
    actual, expected = (
        outputs_and_gradients(convolve, *arrays, geometry)
        for convolve in (gpu_convolution.convolution, xla_convolution)
    )
    for value, expected_value in zip(actual, expected, strict=True):
        assert_close(value, expected_value, 1e-4)


@pytest.mark.parametrize(
    ("layer", "number"),
    [("LeNet-5's C1", 0), ("LeNet-5's C3", 0), ("LeNet-5's C5", 0)]
    + [("AlexNet's conv1", 3), ("few channels in a block", 3), ("narrow groups", 3)],
)
def test_number_of_convolutions(layer, number):
    *shapes, geometry = LAYERS[layer]
    text = program(gpu_convolution.convolution, *operands(*shapes, geometry), geometry)
    assert text.count("stablehlo.convolution") == number


def test_blocks_have_the_stride_and_the_channels():
    images, kernel = operands(2, 3, 8, LAYERS["AlexNet's conv1"][3])
    text = program(gpu_convolution.convolution, images, kernel, LAYERS["AlexNet's conv1"][3])
    assert "3x3x48x8xf32" in text and "11x11x3x8xf32>) -> tensor<2x" not in text
    few = LAYERS["few channels in a block"]
    arrays = operands(*few[:3], few[3])
    xla, ours = (
        program(f, *arrays, few[3]) for f in (xla_convolution, gpu_convolution.convolution)
    )
    assert ours == xla


@pytest.mark.parametrize(
    ("num_images", "dtype", "number"),
    [(106, jnp.float32, 0), (107, jnp.float32, 3), (106, jnp.bfloat16, 3)],
)
def test_patches_are_made_up_to_their_limit_in_float32(num_images, dtype, number):
    *_, geometry = LAYERS["LeNet-5's C1"]
    assert 106 == 2**23 // (28 * 28 * 25 * 4)
    images = jax.ShapeDtypeStruct((num_images, 28, 28, 1), dtype)
    kernel = jax.ShapeDtypeStruct((5, 5, 1, 6), dtype)
    text = program(gpu_convolution.convolution, images, kernel, geometry)
    assert text.count("stablehlo.convolution") == number


@pytest.mark.parametrize("layer", ["LeNet-5's C3", "LeNet-5's C5", "AlexNet's conv1"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_two_bytes_are_as_accurate_as_xlas(layer, dtype):
    *shapes, geometry = LAYERS[layer]
    arrays = operands(*shapes, geometry, dtype)
    wide = outputs_and_gradients(xla_convolution, *(a.astype(float) for a in arrays), geometry)

    def errors(convolve):
        found = outputs_and_gradients(convolve, *arrays, geometry)
        assert all(value.dtype == dtype for value in found)
        return [
            float(jnp.std(value - expected)) for value, expected in zip(found, wide, strict=True)
        ]

    both = errors(gpu_convolution.convolution), errors(xla_convolution)
    for ours, theirs in zip(*both, strict=True):
        assert 0 < ours < 1.1 * theirs


def test_convolution_for_cuda_has_blocks_in_two_bytes_and_for_one_kernel_only():
    images = jax.ShapeDtypeStruct((2, 63, 67, 3), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((11, 11, 3, 8), jnp.bfloat16)
    kernels = jax.ShapeDtypeStruct((5, *kernel.shape), kernel.dtype)
    convolve = functools.partial(
        conv_general_dilated,
        window_strides=(4, 4),
        padding=((2, 2), (2, 2)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    over_kernels = jax.vmap(convolve, in_axes=(None, 0))
    for run, weights, has_blocks in [(convolve, kernel, True), (over_kernels, kernels, False)]:
        program = jax.export.export(jax.jit(run), platforms=["cuda"])(images, weights)
        assert ("3x3x48x8xbf16" in program.mlir_module()) == has_blocks
