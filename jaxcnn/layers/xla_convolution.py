"""The convolution in XLA's own operation."""

from __future__ import annotations

from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution.geometry import NHWC, Geometry


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
