"""The primitives of a convolution, their lowerings, derivatives and batching.

The convolution and its two gradients are bilinear in their two operands:

    outputs         = convolution(images, kernel)
    images_gradient = convolution_images_gradient(outputs, kernel)
    kernel_gradient = convolution_kernel_gradient(images, outputs)

They share one trilinear form, <outputs, convolution(images, kernel)>, so each is the transpose of
the other two. From those six rules JAX derives forward mode, reverse mode and every higher
derivative. Each operand may have leading axes before the four of a convolution. A primitive then
computes one convolution for each index along them, as `vmap` requires.

`store_p` returns its operand. On a CPU, with `of="values"` the operand is stored batch-minor (see
`cpu_convolution/batch_minor.py`), and with `of="gradient"` the gradient is: each is the transpose
of the other. Three sums read the gradient of a convolution's outputs: the gradients of the images,
of the kernel and of the bias. If it is not stored once, XLA computes it again for each of them, and
rearranges it for the bias, which takes longer than the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from jaxcnn.layers import gpu_convolution
from jaxcnn.layers.cpu_convolution import lowering
from jaxcnn.layers.cpu_convolution.batch_minor import store_batch_minor
from jaxcnn.layers.cpu_convolution.geometry import Geometry
from jaxcnn.layers.xla_convolution import xla_convolution

# The gradients of a convolution are its transposes. Operands have four axes.


def _by_images(convolve: Callable[..., Array]) -> Callable[..., Array]:
    """Return the gradient of <outputs, convolve(images, kernel)> by the images."""

    def gradient(outputs: Array, kernel: Array, *, geometry: Geometry) -> Array:
        images = jax.ShapeDtypeStruct(geometry.image_shape(outputs, kernel), outputs.dtype)
        of_images = lambda images: convolve(images, kernel, geometry=geometry)  # noqa: E731
        return jax.linear_transpose(of_images, images)(outputs)[0]

    return gradient


def _by_kernel(convolve: Callable[..., Array]) -> Callable[..., Array]:
    """Return the gradient of <outputs, convolve(images, kernel)> by the kernel."""

    def gradient(images: Array, outputs: Array, *, geometry: Geometry) -> Array:
        kernel = jax.ShapeDtypeStruct(geometry.kernel_shape(images, outputs), images.dtype)
        of_kernel = lambda kernel: convolve(images, kernel, geometry=geometry)  # noqa: E731
        return jax.linear_transpose(of_kernel, kernel)(outputs)[0]

    return gradient


# The primitives


def _primitive(
    name: str,
    result_shape: Callable[[Geometry, Any, Any], tuple[int, ...]],
    xla: Callable[..., Array],
    cpu: Callable[..., Array],
    gpu: Callable[..., Array],
) -> Primitive:
    """Build a primitive with two operands, without its derivatives and its batching.

    Args:
      name: name of the primitive.
      result_shape: function of the geometry and both operands that returns the result's shape.
      xla: the primitive in XLA's own operations.
      cpu: the primitive on a CPU, called with float32.
      gpu: the primitive on an NVIDIA GPU.
    """
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
        fun = xla
        if _has_fixed_sizes(context):
            # An exported program must not contain layout constraints, because JAX does not
            # guarantee that a later version can read them.
            for_export = context.module_context.lowering_parameters.for_export
            fun = partial(_in_float32, cpu, constrain_layouts=not for_export)
        return lower(fun, context, *operands, geometry=geometry)

    def lower_on_gpu(context: mlir.LoweringRuleContext, *operands: Any, geometry: Geometry) -> Any:
        # With leading axes there is a kernel for each index, and `gpu` would copy its patches.
        has_one_kernel = len(context.avals_in[0].shape) == 4  # type: ignore[attr-defined]
        fun = gpu if has_one_kernel and _has_fixed_sizes(context) else xla
        return lower(fun, context, *operands, geometry=geometry)

    mlir.register_lowering(primitive, partial(lower, xla))
    mlir.register_lowering(primitive, lower_on_cpu, platform="cpu")
    mlir.register_lowering(primitive, lower_on_gpu, platform="cuda")
    return primitive


def _in_float32(fun: Callable[..., Array], first: Array, second: Array, **kwargs: Any) -> Array:
    """Return `fun` of the operands, computed in float32 and rounded to their type."""
    result = fun(first.astype(jnp.float32), second.astype(jnp.float32), **kwargs)
    return result.astype(first.dtype)


def _has_fixed_sizes(context: mlir.LoweringRuleContext) -> bool:
    """Return whether no size is symbolic or 0 (no channels, or `vmap` over no images)."""
    operand_types: list[Any] = list(context.avals_in)
    sizes = [size for operand_type in operand_types for size in operand_type.shape]
    return all(isinstance(size, int) and size > 0 for size in sizes)


convolution_p = _primitive(
    "convolution",
    Geometry.output_shape,
    xla=xla_convolution,
    cpu=lowering.convolution,
    gpu=gpu_convolution.convolution,
)
images_gradient_p = _primitive(
    "convolution_images_gradient",
    Geometry.image_shape,
    xla=_by_images(xla_convolution),
    cpu=lowering.images_gradient,
    gpu=_by_images(gpu_convolution.convolution),
)
kernel_gradient_p = _primitive(
    "convolution_kernel_gradient",
    Geometry.kernel_shape,
    xla=_by_kernel(xla_convolution),
    cpu=lowering.kernel_gradient,
    gpu=_by_kernel(gpu_convolution.convolution),
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


# The primitive that stores an array or its gradient

Stored = Literal["values", "gradient"]

store_p = Primitive("store")
store_p.def_impl(lambda array, of: array)
store_p.def_abstract_eval(lambda array, of: array)


def _lower_store_on_cpu(context: mlir.LoweringRuleContext, operand: Any, *, of: Stored) -> Any:
    # An exported program must not contain layout constraints.
    if of == "gradient" or context.module_context.lowering_parameters.for_export:
        return [operand]
    store = store_batch_minor
    [aval] = context.avals_in
    for _ in aval.shape[:-4]:  # type: ignore[attr-defined]
        store = jax.vmap(store)
    return mlir.lower_fun(store, multiple_results=False)(context, operand)


def _transpose_store(cotangent: Any, _: Any, *, of: Stored) -> list[Any]:
    return [store_p.bind(cotangent, of="values" if of == "gradient" else "gradient")]


def _batch_store(operands: Any, axes: Any, *, of: Stored) -> tuple[Array, int]:
    [operand], [axis] = operands, axes
    return store_p.bind(jnp.moveaxis(operand, axis, 0), of=of), 0


mlir.register_lowering(store_p, lambda context, operand, of: [operand])
mlir.register_lowering(store_p, _lower_store_on_cpu, platform="cpu")
ad.deflinear2(store_p, _transpose_store)
batching.primitive_batchers[store_p] = _batch_store
