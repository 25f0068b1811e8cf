"""A drop-in `lax.conv_general_dilated` that is fast on a CPU and differentiates in every mode.

XLA is slow at several kinds of float32 convolution on a CPU, more so inside a loop over training
steps. `cpu_convolution/` computes the same sums in another order. GPU and TPU programs contain
XLA's own convolution. The choice is made when a program is lowered for a platform, so modules,
parameters and checkpoints are those of `flax.linen`:

    nn.Conv(..., conv_general_dilated=conv_general_dilated)

The convolution and its two gradients are three primitives, each bilinear in its two operands:

    outputs         = convolution(images, kernel)
    images_gradient = convolution_images_gradient(outputs, kernel)
    kernel_gradient = convolution_kernel_gradient(images, outputs)

They share one trilinear form, <outputs, convolution(images, kernel)>, so each is the transpose of
the other two. From those six rules JAX derives forward mode, reverse mode and every higher
derivative. Each operand may have leading axes before the four of a convolution. A primitive then
computes one convolution for each index along them, as `vmap` requires.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution import lowering
from jaxcnn.layers.cpu_convolution.geometry import NHWC, Geometry

# Strided convolutions of more input channels stay with XLA.
MAX_STRIDED_CHANNELS = 4


def conv_general_dilated(
    lhs: Float[Array, "batch *space channels"],
    rhs: Float[Array, "*kernel channels_per_group features"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    **kwargs: Any,
) -> Float[Array, "batch *output_space features"]:
    """Convolve `lhs` with `rhs` as `jax.lax.conv_general_dilated`, with fast lowerings on a CPU.

    Arguments, values and errors are those of `jax.lax.conv_general_dilated`. The fast lowerings
    apply to undilated float32 convolutions of [batch, height, width, channels] whose padding is
    smaller than the kernel and, with a stride, that have at most MAX_STRIDED_CHANNELS channels,
    grouped or not. Any other call is `jax.lax.conv_general_dilated`, including one that sets
    `precision`, `preferred_element_type` or `batch_group_count`, one within
    `jax.default_matmul_precision`, and one under a mesh with explicit axes.

    On a CPU an infinity or NaN in an operand may spread beyond the kernel's window, over all
    outputs or the whole gradient of the same image.
    """

    def xla(lhs: Array, rhs: Array) -> Array:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
            **kwargs,
        )

    output_shape = jax.eval_shape(xla, lhs, rhs).shape  # raises lax's own errors
    mesh = jax.sharding.get_abstract_mesh()
    # With explicit axes, lax's own rules derive the shardings of the outputs and gradients.
    if not _is_nhwc(lhs, rhs, dimension_numbers) or AxisType.Explicit in mesh.axis_types:
        return xla(lhs, rhs)
    sizes = *lhs.shape, *rhs.shape
    dilations = [
        tuple(dilation) for dilation in (lhs_dilation, rhs_dilation) if dilation is not None
    ]
    if (
        not all(isinstance(size, int) for size in sizes)  # symbolic, for `jax.export`
        or any(set(dilation) != {1} for dilation in dilations)
        or {lhs.dtype, rhs.dtype} != {jnp.dtype(jnp.float32)}
        or batch_group_count != 1
        or any(value is not None for value in (precision, preferred_element_type, *kwargs.values()))
        # lax reads the setting when a call is traced; a primitive reads it later, at lowering.
        or jax.config.jax_default_matmul_precision is not None  # type: ignore[attr-defined]
        or 0 in output_shape
        or (set(window_strides) != {1} and lhs.shape[-1] > MAX_STRIDED_CHANNELS)
    ):
        return _by_device(xla, lhs, rhs)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], window_strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    # Wider padding is left to XLA, because a gradient would have to crop.
    if any(not 0 <= p < k for k, pair in zip(rhs.shape, pads, strict=False) for p in pair):
        return _by_device(xla, lhs, rhs)
    geometry = Geometry(
        lhs.shape[1:3], rhs.shape[:2], tuple(window_strides), pads, feature_group_count
    )
    return _by_device(
        lambda lhs, rhs: convolution_p.bind(*_vary_alike(lhs, rhs), geometry=geometry), lhs, rhs
    )


def _by_device(convolve: Callable[[Array, Array], Array], lhs: Array, rhs: Array) -> Array:
    """Return `convolve(lhs, rhs)`; under a mesh each device convolves its own images.

    Without `shard_map`, the partitioner sends all images to all devices, for a loop over images as
    in `cpu_convolution/kernel_gradient.py` and for XLA's grouped convolution (openxla/xla#47945).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if (
        mesh.size < 2
        or not isinstance(lhs.shape[0], int)
        or lhs.shape[0] % mesh.size
        or {*mesh.axis_types} != {AxisType.Auto}
    ):
        return convolve(lhs, rhs)
    images = PartitionSpec(mesh.axis_names)  # over all axes
    return jax.shard_map(
        convolve, in_specs=(images, PartitionSpec()), out_specs=images, check_vma=False
    )(lhs, rhs)


def _is_nhwc(lhs: Array, rhs: Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return lhs.ndim == 4 and numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)


def _vary_alike(*arrays: Array) -> list[Array]:
    """Mark arrays as varying over the same axes of a caller's `shard_map`, as lax does."""
    varying = [_varying(array) for array in arrays]
    missing = [tuple(frozenset().union(*varying) - axes) for axes in varying]
    return [
        _pcast(array, axes) if axes else array for array, axes in zip(arrays, missing, strict=True)
    ]


def _varying(array: Array) -> frozenset[str]:
    aval = jax.typeof(array)
    return aval.vma if hasattr(aval, "vma") else aval.manual_axis_type.varying


def _pcast(array: Array, axes: tuple[str, ...]) -> Array:
    if hasattr(lax, "pcast"):
        return lax.pcast(array, axes, to="varying")
    return lax.pvary(array, axes)  # type: ignore[attr-defined]  # jax 0.7


# Each primitive in XLA's own operations. Operands have four axes.


def xla_convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
) -> Float[Array, "batch rows columns features"]:
    """Convolve images with a kernel."""
    return lax.conv_general_dilated(
        images,
        kernel,
        geometry.strides,
        geometry.pads,
        dimension_numbers=NHWC,
        feature_group_count=geometry.groups,
    )


def xla_images_gradient(
    outputs: Float[Array, "batch rows columns features"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the images."""
    convolve = lambda images: xla_convolution(images, kernel, geometry=geometry)  # noqa: E731
    images = jax.ShapeDtypeStruct(geometry.image_shape(outputs, kernel), outputs.dtype)
    return jax.linear_transpose(convolve, images)(outputs)[0]


def xla_kernel_gradient(
    images: Float[Array, "batch height width channels"],
    outputs: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
) -> Float[Array, "kernel_height kernel_width channels_per_group features"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the kernel."""
    convolve = lambda kernel: xla_convolution(images, kernel, geometry=geometry)  # noqa: E731
    kernel = jax.ShapeDtypeStruct(geometry.kernel_shape(images, outputs), images.dtype)
    return jax.linear_transpose(convolve, kernel)(outputs)[0]


# The primitives


def _primitive(
    name: str,
    result_shape: Callable[[Geometry, Any, Any], tuple[int, ...]],
    xla: Callable[..., Array],
    cpu: Callable[..., Array],
) -> Primitive:
    """Build a primitive with two operands, without its derivatives and its batching."""
    primitive = Primitive(name)

    @primitive.def_abstract_eval
    def _(first: Any, second: Any, *, geometry: Geometry) -> Any:
        return first.update(shape=result_shape(geometry, first, second), weak_type=False)

    compiled = jax.jit(primitive.bind, static_argnames="geometry")

    @primitive.def_impl
    def _(*operands: Array, geometry: Geometry) -> Array:
        # Eager use compiles a program, even under `jax_disable_jit`, where `bind` calls itself.
        with jax.disable_jit(False):
            return compiled(*operands, geometry=geometry)

    def lower(
        fun: Callable[..., Array],
        context: mlir.LoweringRuleContext,
        *operands: Any,
        geometry: Geometry,
    ) -> Any:
        # Drop the axes of a `shard_map` over which operands vary, because loops check them.
        operand_types: list[Any] = list(context.avals_in)
        avals = [jax.core.ShapedArray(aval.shape, aval.dtype) for aval in operand_types]
        fun = partial(fun, geometry=geometry)
        for _ in avals[0].shape[:-4]:
            fun = jax.vmap(fun)
        return mlir.lower_fun(fun, multiple_results=False)(
            context.replace(avals_in=avals), *operands
        )

    def lower_on_cpu(context: mlir.LoweringRuleContext, *operands: Any, geometry: Geometry) -> Any:
        fun, operand_types = xla, list[Any](context.avals_in)
        sizes = [size for operand_type in operand_types for size in operand_type.shape]
        # XLA alone handles symbolic sizes, and size 0: no channels, or `vmap` over no images.
        if all(isinstance(size, int) and size > 0 for size in sizes):
            # An exported program must not contain layout constraints, because JAX does not
            # guarantee that a later version can read them.
            for_export = context.module_context.lowering_parameters.for_export
            fun = partial(cpu, constrain_layouts=not for_export)
        return lower(fun, context, *operands, geometry=geometry)

    mlir.register_lowering(primitive, partial(lower, xla))
    mlir.register_lowering(primitive, lower_on_cpu, platform="cpu")
    return primitive


convolution_p = _primitive(
    "convolution", Geometry.output_shape, xla_convolution, lowering.convolution
)
images_gradient_p = _primitive(
    "convolution_images_gradient",
    Geometry.image_shape,
    xla_images_gradient,
    lowering.images_gradient,
)
kernel_gradient_p = _primitive(
    "convolution_kernel_gradient",
    Geometry.kernel_shape,
    xla_kernel_gradient,
    lowering.kernel_gradient,
)

# Each rule takes the cotangent of a primitive's result and the two operands (the one to
# differentiate by is a placeholder), and returns the gradient of <result, cotangent>.
ad.defbilinear(
    convolution_p,
    lambda outputs, _, kernel, **p: images_gradient_p.bind(outputs, kernel, **p),
    lambda outputs, images, _, **p: kernel_gradient_p.bind(images, outputs, **p),
)
ad.defbilinear(
    images_gradient_p,
    lambda images, _, kernel, **p: convolution_p.bind(images, kernel, **p),
    lambda images, outputs, _, **p: kernel_gradient_p.bind(images, outputs, **p),
)
ad.defbilinear(
    kernel_gradient_p,
    lambda kernel, _, outputs, **p: images_gradient_p.bind(outputs, kernel, **p),
    lambda kernel, images, _, **p: convolution_p.bind(images, kernel, **p),
)


def _batch(
    primitive: Primitive,
    operands: Sequence[Array],
    axes: Sequence[int | None],
    *,
    geometry: Geometry,
) -> tuple[Array, int]:
    """Apply a primitive to operands that `vmap` batched along `axes`, None for not batched."""
    first, second = (
        operand if axis is None else jnp.moveaxis(operand, axis, 0)
        for operand, axis in zip(operands, axes, strict=True)
    )
    if axes[1] is None and primitive is not kernel_gradient_p:
        # With one kernel for all, merge the new batch axis into that of the images.
        size, num_images = first.shape[0], first.shape[-4]
        first = jnp.moveaxis(first, 0, -5)
        first = first.reshape(*first.shape[:-5], size * num_images, *first.shape[-3:])
        result = primitive.bind(first, second, geometry=geometry)
        shape = *result.shape[:-4], size, num_images, *result.shape[-3:]
        return jnp.moveaxis(result.reshape(shape), -5, 0), 0
    size = second.shape[0] if axes[0] is None else first.shape[0]
    if axes[0] is None:
        first = jnp.broadcast_to(first, (size, *first.shape))
    if axes[1] is None:
        second = jnp.broadcast_to(second, (size, *second.shape))
    return primitive.bind(first, second, geometry=geometry), 0


for _primitive_ in (convolution_p, images_gradient_p, kernel_gradient_p):
    batching.primitive_batchers[_primitive_] = partial(_batch, _primitive_)
