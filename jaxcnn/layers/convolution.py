"""A drop-in `lax.conv_general_dilated` that is fast on a CPU and differentiates in every mode.

XLA is slow at several kinds of convolution on a CPU, more so inside a loop over training steps.
`cpu_convolution/` computes the same sums in another order. On an NVIDIA GPU, `gpu_convolution.py`
rewrites a few layers; TPU programs contain XLA's own convolution. The choice is made when a program
is lowered for a platform, so modules, parameters and checkpoints are those of `flax.linen`:

    nn.Conv(..., conv_general_dilated=conv_general_dilated)

In a compact method, `linen_conv(...)` is the same layer. It trains faster if it has few channels,
because `store_gradient` follows its bias.

`convolution_primitives.py` holds the primitives of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

from jaxcnn.layers.convolution_primitives import convolution_p, store_p
from jaxcnn.layers.cpu_convolution import lowering
from jaxcnn.layers.cpu_convolution.geometry import NHWC, Geometry

# Types of the primitives. On a CPU they compute in float32, and round the result.
TYPES = tuple(map(jnp.dtype, ("float32", "bfloat16", "float16")))

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
    *,
    gradient_is_stored: bool = False,
    **kwargs: Any,
) -> Float[Array, "batch *output_space features"]:
    """Convolve `lhs` with `rhs` as `jax.lax.conv_general_dilated`, with fast lowerings.

    Arguments, values and errors are those of `jax.lax.conv_general_dilated`. The fast lowerings
    apply to undilated convolutions of [batch, height, width, channels] in a type of TYPES whose
    padding is smaller than the kernel and, with a stride, that have at most MAX_STRIDED_CHANNELS
    channels, grouped or not. Any other call is `jax.lax.conv_general_dilated`, including one that
    sets `precision`, `preferred_element_type` or `batch_group_count`, one within
    `jax.default_matmul_precision`, and one under a mesh with explicit axes.

    The outputs pass through `store_gradient`. A caller that adds a bias and passes the sum through
    `store_gradient` itself sets `gradient_is_stored`, so that the gradient is stored once.

    On a CPU an infinity or NaN in an operand may spread beyond the kernel's window, over all
    outputs or the whole gradient of the same image; on a GPU, to the windows beside its own.
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
    dilations = [tuple(each) for each in (lhs_dilation, rhs_dilation) if each is not None]
    is_plain = (
        0 not in output_shape
        and all({*dilation} == {1} for dilation in dilations)
        and batch_group_count == 1
        and all(value is None for value in (precision, preferred_element_type, *kwargs.values()))
        # lax reads the setting when a call is traced; a primitive reads it later, at lowering.
        and jax.config.jax_default_matmul_precision is None  # type: ignore[attr-defined]
    )
    geometry = _geometry(lhs, rhs, window_strides, padding, feature_group_count)
    if not is_plain or geometry is None:
        return _by_device(xla, lhs, rhs)
    outputs = _by_device(
        lambda lhs, rhs: convolution_p.bind(*_vary_alike(lhs, rhs), geometry=geometry), lhs, rhs
    )
    return outputs if gradient_is_stored else store_gradient(outputs, lhs.shape[-1])


def _geometry(
    lhs: Array,
    rhs: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    groups: int,
) -> Geometry | None:
    """Return the sizes of an undilated convolution, or None if the primitives do not compute it."""
    if (
        not all(isinstance(size, int) for size in (*lhs.shape, *rhs.shape))  # for `jax.export`
        or lhs.dtype != rhs.dtype
        or lhs.dtype not in TYPES
        or ({*strides} != {1} and lhs.shape[-1] > MAX_STRIDED_CHANNELS)
    ):
        return None
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], rhs.shape[:2], strides, padding)
    pads = tuple((int(low), int(high)) for low, high in padding)
    # Wider padding is left to XLA, because a gradient would have to crop.
    if any(not 0 <= p < k for k, pair in zip(rhs.shape, pads, strict=False) for p in pair):
        return None
    return Geometry(lhs.shape[1:3], rhs.shape[:2], tuple(strides), pads, groups)


def linen_conv(*args: Any, **kwargs: Any) -> Callable[[Array], Array]:
    """Return `flax.linen.Conv` with `conv_general_dilated`, followed by `store_gradient`.

    Call it within a compact method. Arguments, parameters and values are those of linen's module.
    """
    convolve = partial(conv_general_dilated, gradient_is_stored=True)
    module = nn.Conv(*args, conv_general_dilated=convolve, **kwargs)  # type: ignore[misc]
    return lambda inputs: store_gradient(module(inputs), inputs.shape[-1])


def store_gradient(
    outputs: Float[Array, "batch rows columns features"], num_channels: int
) -> Float[Array, "batch rows columns features"]:
    """Return `outputs`; on a CPU, their gradient is stored once if the convolution is batch-minor.

    Args:
      outputs: outputs of `conv_general_dilated`, or these and a bias.
      num_channels: number of channels of the images.
    """
    is_batch_minor = (
        outputs.ndim == 4
        and outputs.dtype in TYPES
        and all(isinstance(size, int) for size in outputs.shape)  # symbolic, for `jax.export`
        and max(num_channels, outputs.shape[3]) <= lowering.MAX_BAND_CHANNELS
        and outputs.shape[1:3] != (1, 1)  # a dense layer
        and outputs.shape[0] >= lowering.MIN_BATCH_MINOR
    )
    mesh = jax.sharding.get_abstract_mesh()
    if not is_batch_minor or AxisType.Explicit in mesh.axis_types:
        return outputs
    return _by_device(partial(store_p.bind, of="gradient"), outputs)


def _by_device(fun: Callable[..., Array], images: Array, *kernel: Array) -> Array:
    """Return `fun(images, *kernel)`; under a mesh each device passes its own images.

    Without `shard_map`, the partitioner sends all images to all devices, for a loop over images as
    in `cpu_convolution/kernel_gradient.py` and for XLA's grouped convolution (openxla/xla#47945).
    """
    mesh = jax.sharding.get_abstract_mesh()
    if (
        mesh.size < 2
        or not isinstance(images.shape[0], int)
        or images.shape[0] % mesh.size
        or {*mesh.axis_types} != {AxisType.Auto}
    ):
        return fun(images, *kernel)
    split = PartitionSpec(mesh.axis_names)  # over all axes
    specs = split, *(PartitionSpec() for _ in kernel)
    return jax.shard_map(fun, in_specs=specs, out_specs=split, check_vma=False)(images, *kernel)


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
