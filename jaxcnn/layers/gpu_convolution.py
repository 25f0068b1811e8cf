"""The convolution on an NVIDIA GPU. A few shapes are rewritten; cuDNN computes the others.

A strided convolution becomes one at stride 1 if a block of stride x stride pixels has at least
MIN_BLOCK_CHANNELS channels: each block becomes one pixel. So conv1 of AlexNet, 11x11 at stride 4
over 3 channels, is a 3x3 kernel over 48 channels. The kernel is padded with zeros to whole blocks,
so an infinity or NaN of an image may spread beyond the kernel's window.

One matrix product replaces a convolution of one group at stride 1 in two cases:

- The kernel is as large as the image, without padding: C5 of LeNet-5.
- The convolution is in float32 with at most MAX_NARROW channels and features, and the patches of
  all images take at most PATCH_BYTES: C1 and C3 of LeNet-5 for 64 images. The product is as fast
  as cuDNN there, and slower for 512. In two bytes, the gradient of the images would be a sum of 25
  rounded terms.

The gradients are the transposes of `convolution`; see `convolution_primitives.py`. The times are in
docs/design/gpu.md.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution.geometry import Geometry
from jaxcnn.layers.cpu_convolution.lowering import images_space_to_depth, kernel_space_to_depth
from jaxcnn.layers.xla_convolution import xla_convolution

MIN_BLOCK_CHANNELS = 32
MAX_NARROW = 16
PATCH_BYTES = 2**23


def convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
) -> Float[Array, "batch rows columns features"]:
    """Convolve images with a kernel."""
    block_channels = math.prod(geometry.strides) * images.shape[3]
    if geometry.groups == 1 and block_channels >= MIN_BLOCK_CHANNELS:
        images = images_space_to_depth(images, geometry)  # at stride 1, these change nothing
        kernel = kernel_space_to_depth(kernel, geometry)
        geometry = geometry.unit_stride()
    if geometry.groups == 1 and geometry.strides == (1, 1):
        if geometry.image_size == geometry.kernel_size and not np.any(geometry.pads):
            return _product(images.reshape(len(images), 1, 1, -1), kernel)
        if _patches_are_small(images, kernel, geometry):
            return _product(_patches(images, geometry), kernel)
    return xla_convolution(images, kernel, geometry=geometry)


def _patches_are_small(images: Array, kernel: Array, geometry: Geometry) -> bool:
    is_narrow = max(images.shape[3], kernel.shape[3]) <= MAX_NARROW
    is_narrow &= images.dtype == jnp.float32
    values = len(images) * math.prod(geometry.output_size) * math.prod(kernel.shape[:3])
    return is_narrow and values * images.dtype.itemsize <= PATCH_BYTES


def _patches(images: Array, geometry: Geometry) -> Float[Array, "batch rows columns taps"]:
    """Return the pixels below the kernel at each position, in the kernel's order."""
    images = jnp.pad(images, ((0, 0), *geometry.pads, (0, 0)))
    rows, columns = geometry.output_size
    taps = itertools.product(*map(range, geometry.kernel_size))
    return jnp.concatenate([images[:, i : i + rows, j : j + columns] for i, j in taps], axis=-1)


def _product(patches: Array, kernel: Array) -> Array:
    flat = patches.reshape(-1, patches.shape[3]) @ kernel.reshape(-1, kernel.shape[3])
    return flat.reshape(*patches.shape[:3], -1)
