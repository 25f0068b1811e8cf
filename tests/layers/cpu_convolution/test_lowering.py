import functools
import math

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.cpu_convolution import lowering
from jaxcnn.layers.cpu_convolution.geometry import Geometry
from jaxcnn.models import IMAGE_SHAPES, MODELS

NHWC = ("NHWC", "HWIO", "NHWC")

# The table of `lowering.py`: network -> layer -> form for 1 image and for 64 images.
LENET = {
    "C1": ("batch_minor", "batch_minor"),
    "C3": ("bands", "batch_minor"),
    "C5": ("dense", "dense"),
}
BANDS, WINOGRAD, XLA = ("bands", "bands"), ("winograd", "winograd"), ("xla", "xla")
SMALL_MAPS = dict.fromkeys(["conv3", "conv4", "conv5"], ("xla", "winograd"))
FORMS = {
    **dict.fromkeys(["linear", "mlp-300", "mlp-1000", "mlp-300-100", "mlp-500-150"], {}),
    "lenet1": {"H1": ("batch_minor", "batch_minor"), "H3": ("bands", "batch_minor")},
    "lenet4": LENET,
    "lenet5": LENET,
    "lenet5-tanh": LENET,
    "lenet5-relu": LENET,
    "lenet5-modern": {"C1": XLA, "C3": XLA, "C5": ("dense", "dense")},
    "lenet5-1998": LENET,
    "lenet5-1998-lecun-uniform": LENET,
    "alexnet": {"conv1": WINOGRAD, "conv2": WINOGRAD, **SMALL_MAPS},
    "alexnet-32": {
        "conv1": BANDS,
        "conv2": WINOGRAD,
        **SMALL_MAPS,
    },
    "alexnet-2012": {
        "conv1": WINOGRAD,
        "conv2": WINOGRAD,
        **SMALL_MAPS,
    },
    **dict.fromkeys(
        ["cuda-convnet-26pct", "cuda-convnet-19pct", "cuda-convnet-18pct"],
        {"conv1": BANDS, "conv2": WINOGRAD, "conv3": ("xla", "winograd")},
    ),
    **dict.fromkeys(
        ["cuda-convnet-13pct", "cuda-convnet-11pct"], {"conv1": BANDS, "conv2": ("xla", "winograd")}
    ),
}


def form_of(image_shape, kernel_shape, geometry, constrain_layouts=True):
    """Return the form of a convolution, given the shape of the kernel of all groups."""
    channels = kernel_shape[2] * math.prod(geometry.strides)
    unit = geometry.unit_stride()
    group = *unit.kernel_size, channels, kernel_shape[3] // geometry.groups
    return lowering.form(image_shape[0], group, unit, constrain_layouts)


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for parameter in equation.params.values():
            for inner in parameter if isinstance(parameter, tuple | list) else (parameter,):
                inner = getattr(inner, "jaxpr", inner)  # a ClosedJaxpr holds a Jaxpr
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def forms(name, num_images):
    """Return the form of each convolution of a network's forward pass, by the layer's name."""
    model = MODELS[name](num_classes=10)
    images = jax.ShapeDtypeStruct((num_images, *IMAGE_SHAPES[name]), jnp.float32)
    apply = functools.partial(model.apply, train=False)
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    found = {}
    for equation in equations(jax.make_jaxpr(apply)(variables, images).jaxpr):
        if equation.primitive.name == "convolution":
            layer = str(equation.source_info.name_stack).split("/")[-1]
            shapes = (operand.aval.shape for operand in equation.invars)
            found[layer] = form_of(*shapes, equation.params["geometry"])
    return found


@pytest.mark.parametrize("name", MODELS)
def test_layers_of_our_networks_take_the_forms_of_the_table(name):
    for_one, for_64 = forms(name, 1), forms(name, 64)
    assert {layer: (for_one[layer], for_64[layer]) for layer in for_64} == FORMS[name]


SAME_3, SAME_5 = ((1, 1), (1, 1)), ((2, 2), (2, 2))


@pytest.mark.parametrize(
    ("images", "kernel", "pads", "expected"),
    [
        ((2, 3, 3, 4), (3, 3, 4, 4), ((0, 0), (0, 0)), "dense"),
        ((2, 3, 3, 4), (3, 3, 4, 4), SAME_3, "bands"),
        ((4, 8, 8, 32), (3, 3, 32, 32), SAME_3, "winograd"),
        ((3, 8, 8, 32), (3, 3, 32, 32), SAME_3, "xla"),
        ((4, 8, 8, 31), (3, 3, 31, 32), SAME_3, "xla"),
        ((4, 8, 8, 32), (5, 5, 32, 32), SAME_5, "winograd"),
        ((4, 8, 8, 32), (5, 5, 32, 31), SAME_5, "xla"),
        ((4, 8, 8, 32), (3, 5, 32, 32), (SAME_3[0], SAME_5[0]), "xla"),
        ((1, 8, 8, 16), (3, 3, 16, 16), SAME_3, "bands"),
        ((15, 8, 8, 16), (3, 3, 16, 16), SAME_3, "bands"),
        ((1, 8, 8, 2), (4, 4, 2, 16), SAME_3, "batch_minor"),
        ((16, 8, 8, 16), (3, 3, 16, 16), SAME_3, "batch_minor"),
        ((16, 8, 8, 16), (3, 3, 16, 17), SAME_3, "xla"),
        ((16, 8, 8, 3), (3, 3, 3, 64), SAME_3, "bands"),
        ((16, 8, 8, 3), (3, 3, 3, 65), SAME_3, "xla"),
        ((16, 8, 8, 2), (3, 3, 2, 17), SAME_3, "xla"),
    ],
)
def test_form_at_each_threshold(images, kernel, pads, expected):
    geometry = Geometry(images[1:3], kernel[:2], (1, 1), pads, groups=1)
    assert form_of(images, kernel, geometry) == expected


def test_an_exported_program_is_not_batch_minor():
    geometry = Geometry((8, 8), (3, 3), (1, 1), SAME_3, groups=1)
    shapes = (16, 8, 8, 4), (3, 3, 4, 4)
    assert form_of(*shapes, geometry, constrain_layouts=False) == "bands"


def test_worked_example_of_space_to_depth():
    # One row of 6 pixels, 3 taps, stride 2: outputs at pixels 0 and 2.
    images = jnp.arange(1.0, 7).reshape(1, 1, 6, 1)
    kernel = jnp.array([1.0, 10, 100]).reshape(1, 3, 1, 1)
    geometry = Geometry((1, 6), (1, 3), (1, 2), ((0, 0), (0, 0)), groups=1)
    blocks = lowering.images_space_to_depth(images, geometry)
    np.testing.assert_array_equal(blocks[0, 0], [[1, 2], [3, 4], [5, 6]])
    taps = lowering.kernel_space_to_depth(kernel, geometry)
    np.testing.assert_array_equal(taps[0, :, :, 0], [[1, 10], [100, 0]])


# Calls that failed, or differed from lax, in earlier versions


def assert_agrees_with_lax(call):
    """Compare `call(conv)` for our convolution and for lax's."""
    actual, expected = (
        call(functools.partial(conv, dimension_numbers=NHWC))
        for conv in (conv_general_dilated, lax.conv_general_dilated)
    )

    def close(actual, expected):
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        atol = 1e-5 * np.abs(expected).max(initial=1e-9)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)

    jax.tree.map(close, actual, expected)


def normal(*shape):
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


def outputs_and_gradients(conv, images, kernel, strides=(1, 1), padding="SAME"):
    outputs, pullback = jax.vjp(lambda x, k: conv(x, k, strides, padding), images, kernel)
    return outputs, *pullback(jnp.cos(outputs))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
def test_many_images_without_channels(strides):
    images, kernel = normal(17, 8, 8, 0), normal(3, 3, 0, 4)
    assert_agrees_with_lax(lambda conv: outputs_and_gradients(conv, images, kernel, strides))


@pytest.mark.parametrize("in_axes", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "padding"),
    [
        ((8, 6, 6, 32), (3, 3, 32, 32), "SAME"),
        ((2, 3, 3, 2), (3, 3, 2, 4), "VALID"),
        ((16, 6, 6, 2), (3, 3, 2, 4), "SAME"),
    ],
    ids=["winograd", "dense", "batch_minor"],
)
def test_vmap_over_nothing(image_shape, kernel_shape, padding, in_axes):
    images, kernel = (
        normal(*(shape if axis is None else (0, *shape)))
        for shape, axis in zip((image_shape, kernel_shape), in_axes, strict=True)
    )

    def call(conv):
        one = functools.partial(outputs_and_gradients, conv, padding=padding)
        return jax.vmap(one, in_axes)(images, kernel)

    assert_agrees_with_lax(call)


def test_dilations_may_be_arrays():
    images, kernel = normal(2, 6, 6, 2), normal(3, 3, 2, 4)
    for dilation in (np.array([1, 1]), np.array([1, 2])):
        assert_agrees_with_lax(
            lambda conv, dilation=dilation: conv(
                images, kernel, (1, 1), "SAME", rhs_dilation=dilation
            )
        )


def test_arguments_may_be_positional():
    arguments = normal(2, 6, 6, 2), normal(3, 3, 2, 4), (1, 1), "SAME", None, None, NHWC, 1, 1
    for more in ((), (lax.Precision.HIGHEST,), (None, jnp.float32)):
        actual, expected = (
            conv(*arguments, *more) for conv in (conv_general_dilated, lax.conv_general_dilated)
        )
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)
    primitives = [
        e.primitive.name
        for e in jax.make_jaxpr(conv_general_dilated, (2, 3, 4, 5, 6, 7, 8))(*arguments).eqns
    ]
    assert primitives == ["convolution"]  # batch_group_count=1 is the default


def test_default_matmul_precision_applies_where_the_call_is_traced():
    arrays = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(4, 6, 6, 2), (3, 3, 2, 4)])

    def step(images, kernel):
        with jax.default_matmul_precision("highest"):
            return outputs_and_gradients(
                functools.partial(conv_general_dilated, dimension_numbers=NHWC), images, kernel
            )

    program = jax.export.export(jax.jit(step), platforms=["cuda"])(*arrays).mlir_module()
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(convolutions) == 3
    assert all(line.count("HIGHEST") == 2 for line in convolutions)


def test_mesh_with_explicit_axes():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))

    def call(conv):
        with jax.set_mesh(mesh):
            by_image, whole = (
                NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec())
            )
            images = jax.device_put(normal(4, 6, 6, 2), by_image)
            kernel = jax.device_put(normal(3, 3, 2, 4), whole)
            results = jax.jit(functools.partial(outputs_and_gradients, conv))(images, kernel)
            assert results[0].sharding.spec[0] == "data"
            return jax.tree.map(np.asarray, results)

    assert_agrees_with_lax(call)
