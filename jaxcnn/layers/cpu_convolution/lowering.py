"""Choose how a convolution and its two gradients are computed on a CPU.

`form` returns the first row of this table whose condition holds for one group at stride 1.

form        | when                            | layers of our networks           | why
------------|---------------------------------|----------------------------------|-----------------
dense       | the kernel is as large as the   | C5 of every LeNet                | one matrix
            | image; no padding               |                                  | product
winograd    | 3x3 or 5x5 kernel; at least     | conv1 to conv5 of alexnet and of | fewer
            | MIN_WINOGRAD_CHANNELS channels  | alexnet-2012; conv2 to conv5 of  | multiplications
            | and features, and               | alexnet-32; conv2 and conv3 of   | than XLA's
            | MIN_WINOGRAD_OUTPUTS outputs    | the cuda-convnets                |
batch_minor | at most MAX_BAND_CHANNELS       | C1 and C3 of every LeNet except  | vectors run over
            | channels and features, and at   | lenet5-modern; of fewer images,  | the images;
            | least MIN_BATCH_MINOR images or | C1                               | twice as fast as
            | outputs that are short sums;    |                                  | bands
            | not for `jax.export`            |                                  |
bands       | at most MAX_BAND_CHANNELS       | C3 of up to 15 images; conv1 of  | one large matrix
            | channels and features, or 3     | alexnet-32 and of all            | product instead
            | channels and at most            | cuda-convnets                    | of XLA's slow
            | MAX_COLOR_FEATURES features     |                                  | convolution
xla         | otherwise                       | C1 and C3 of lenet5-modern; of   | XLA runs at the
            |                                 | one image, conv3 to conv5 of the | rate of matrix
            |                                 | AlexNets and the last            | products
            |                                 | convolution of the cuda-convnets |

A strided convolution becomes one at stride 1: each block of stride x stride pixels becomes one
pixel with more channels (`images_space_to_depth`). So conv1 of alexnet, 11x11 at stride 4 over 3
channels, is a 3x3 kernel over 48 channels. `MAX_STRIDED_CHANNELS` in `convolution.py` limits the
channels. Each group is a separate convolution.

The gradients take the form of the convolution, with two exceptions. For winograd and xla, the
gradient of the images is a convolution with the reversed kernel, and `form` is applied to that. For
batch_minor, bands and xla, the gradient of the kernel is computed in `kernel_gradient.py`.

`docs/design/cpu-convolution.md` explains the design and lists the timings.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jaxcnn.layers.cpu_convolution import batch_minor
from jaxcnn.layers.cpu_convolution.bands import bands
from jaxcnn.layers.cpu_convolution.geometry import NHWC, Geometry
from jaxcnn.layers.cpu_convolution.kernel_gradient import kernel_gradient_by_products
from jaxcnn.layers.cpu_convolution.winograd import POINTS, winograd, winograd_kernel_gradient
from jaxcnn.layers.padding import Pads

# Smallest number of images that batch_minor convolves, unless outputs are short sums.
MIN_BATCH_MINOR = 16
# Largest number of channels and of features at which batch_minor and bands are faster than XLA.
MAX_BAND_CHANNELS = 16
# Largest number of features at which bands is faster than XLA for the 3 channels of a color image.
# batch_minor is slower there: cuda-convnet-18pct's step of 128 images takes 149 ms in bands, 214
# batch-minor.
MAX_COLOR_FEATURES = 64
# Smallest number of channels and of features at which Winograd's convolution is faster than XLA's.
MIN_WINOGRAD_CHANNELS = 32
# Smallest number of outputs of all images, for each feature, at which Winograd's convolution is
# faster than XLA's. With fewer outputs, most of the time is spent on transforming the kernel.
MIN_WINOGRAD_OUTPUTS = 256

Form = Literal["dense", "winograd", "batch_minor", "bands", "xla"]


def convolution(
    images: Float[Array, "batch height width channels"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "batch rows columns features"]:
    """Convolve images with a kernel.

    Args:
      images: images without padding.
      kernel: kernel of all groups.
      geometry: sizes, strides, padding and groups.
      constrain_layouts: whether the program may contain layout constraints.
    """

    def convolve_group(images: Array, kernel: Array) -> Array:
        return _convolve(
            images_space_to_depth(images, geometry),
            kernel_space_to_depth(kernel, geometry),
            geometry.unit_stride(),
            constrain_layouts,
        )

    return _by_group(convolve_group, images, kernel, geometry.groups)


def images_gradient(
    outputs: Float[Array, "batch rows columns features"],
    kernel: Float[Array, "kernel_height kernel_width channels_per_group features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "batch height width channels"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the images.

    Args:
      outputs: gradient of the outputs.
      kernel: kernel of all groups.
      geometry: sizes, strides, padding and groups.
      constrain_layouts: whether the program may contain layout constraints.
    """

    def group_gradient(outputs: Array, kernel: Array) -> Array:
        gradient = _images_gradient(
            outputs,
            kernel_space_to_depth(kernel, geometry),
            geometry.unit_stride(),
            constrain_layouts,
        )
        images = (len(outputs), *geometry.image_size, kernel.shape[2]), outputs.dtype
        return _transpose(partial(images_space_to_depth, geometry=geometry), *images)(gradient)

    return _by_group(group_gradient, outputs, kernel, geometry.groups)


def kernel_gradient(
    images: Float[Array, "batch height width channels"],
    outputs: Float[Array, "batch rows columns features"],
    *,
    geometry: Geometry,
    constrain_layouts: bool,
) -> Float[Array, "kernel_height kernel_width channels_per_group features"]:
    """Return the gradient of <outputs, convolution(images, kernel)> by the kernel.

    Args:
      images: images without padding.
      outputs: gradient of the outputs.
      geometry: sizes, strides, padding and groups.
      constrain_layouts: whether the program may contain layout constraints.
    """

    def group_gradient(images: Array, outputs: Array) -> Array:
        gradient = _kernel_gradient(
            images_space_to_depth(images, geometry),
            outputs,
            geometry.unit_stride(),
            constrain_layouts,
        )
        kernel = (*geometry.kernel_size, images.shape[3], outputs.shape[3]), images.dtype
        return _transpose(partial(kernel_space_to_depth, geometry=geometry), *kernel)(gradient)

    return _by_group(group_gradient, images, outputs, geometry.groups)


def _by_group(fun: Callable[..., Array], first: Array, second: Array, groups: int) -> Array:
    """Apply `fun` to each group. The last axis of operands and result holds the groups in order."""
    pairs = zip(jnp.split(first, groups, -1), jnp.split(second, groups, -1), strict=True)
    results = [fun(*pair) for pair in pairs]
    return results[0] if groups == 1 else jnp.concatenate(results, axis=-1)


def _transpose(
    fun: Callable[[Array], Array], shape: tuple[int, ...], dtype: np.dtype
) -> Callable[[Array], Array]:
    """Return the transpose of `fun`, a linear function of one array of that shape and dtype."""
    transposed = jax.linear_transpose(fun, jax.ShapeDtypeStruct(shape, dtype))
    return lambda array: transposed(array)[0]


# One group at stride 1


def form(
    num_images: int, kernel_shape: tuple[int, ...], geometry: Geometry, constrain_layouts: bool
) -> Form:
    """Return the form of a convolution of one group at stride 1, by the table above.

    Args:
      num_images: number of images.
      kernel_shape: kernel height, kernel width, channels, features.
      geometry: sizes and padding.
      constrain_layouts: whether the program may contain layout constraints.
    """
    taps, width, channels, features = kernel_shape
    if geometry.image_size == geometry.kernel_size and not np.any(geometry.pads):
        return "dense"
    is_wide = taps == width in POINTS and min(channels, features) >= MIN_WINOGRAD_CHANNELS
    if is_wide and num_images * math.prod(geometry.output_size) >= MIN_WINOGRAD_OUTPUTS:
        return "winograd"
    is_narrow = max(channels, features) <= MAX_BAND_CHANNELS
    is_short_sum = taps * width * channels <= batch_minor.MAX_STENCIL_TAPS
    if is_narrow and constrain_layouts and (num_images >= MIN_BATCH_MINOR or is_short_sum):
        return "batch_minor"
    if is_narrow or (channels == 3 and features <= MAX_COLOR_FEATURES):
        return "bands"
    return "xla"


def _convolve(
    images: Array,
    kernel: Array,
    geometry: Geometry,
    constrain_layouts: bool,
    *,
    is_reversed: bool = False,
) -> Array:
    match form(len(images), kernel.shape, geometry, constrain_layouts):
        case "dense":
            images = _store_narrow(images, constrain_layouts)
            outputs = images.reshape(len(images), -1) @ kernel.reshape(-1, kernel.shape[-1])
            return outputs.reshape(len(images), 1, 1, -1)
        case "winograd":
            return winograd(_pad(images, geometry.pads), kernel, is_reversed=is_reversed)
        case "batch_minor":
            return batch_minor.convolve(_pad(images, geometry.pads), kernel)
        case "bands":
            return bands(_pad(images, geometry.pads), kernel)
        case "xla":
            images = _store_narrow(images, constrain_layouts)
            return lax.conv_general_dilated(
                _pad(images, geometry.pads), kernel, (1, 1), "VALID", dimension_numbers=NHWC
            )


def _images_gradient(
    outputs: Array, kernel: Array, geometry: Geometry, constrain_layouts: bool
) -> Array:
    pad = partial(_pad, pads=geometry.pads)
    images = geometry.image_shape(outputs, kernel), outputs.dtype
    match form(len(outputs), kernel.shape, geometry, constrain_layouts):
        case "dense":
            flat = outputs.reshape(len(outputs), -1) @ kernel.reshape(-1, kernel.shape[-1]).T
            return flat.reshape(images[0])
        case "batch_minor":
            padded = jax.eval_shape(pad, jax.ShapeDtypeStruct(*images)).shape
            gradient = batch_minor.images_gradient(outputs, kernel, padded)
            return _transpose(pad, *images)(gradient)
        case "bands":
            return _transpose(lambda images: bands(pad(images), kernel), *images)(outputs)
        case _:  # a convolution with the reversed kernel
            reversed_kernel = kernel[::-1, ::-1].swapaxes(2, 3)
            margins = tuple(
                (k - 1 - low, k - 1 - high)
                for k, (low, high) in zip(geometry.kernel_size, geometry.pads, strict=True)
            )
            geometry = geometry._replace(image_size=outputs.shape[1:3], pads=margins)
            return _convolve(
                outputs, reversed_kernel, geometry, constrain_layouts, is_reversed=True
            )


def _kernel_gradient(
    images: Array, outputs: Array, geometry: Geometry, constrain_layouts: bool
) -> Array:
    shape = geometry.kernel_shape(images, outputs)
    match form(len(images), shape, geometry, constrain_layouts):
        case "dense":
            images = _store_narrow(images, constrain_layouts)
            flat = images.reshape(len(images), -1).T @ outputs.reshape(len(outputs), -1)
            return flat.reshape(shape)
        case "winograd":
            return winograd_kernel_gradient(_pad(images, geometry.pads), outputs, shape)
        case _:
            return kernel_gradient_by_products(_pad(images, geometry.pads), outputs)


def _store_narrow(images: Array, constrain_layouts: bool) -> Array:
    """Store images of few channels batch-minor, so that the layers before stay batch-minor.

    Otherwise XLA computes their activations and pools in the order of this layer, several times as
    slowly.
    """
    is_narrow = images.shape[3] <= MAX_BAND_CHANNELS and len(images) >= MIN_BATCH_MINOR
    return batch_minor.store_batch_minor(images) if is_narrow and constrain_layouts else images


def _pad(images: Array, pads: Pads) -> Array:
    return jnp.pad(images, ((0, 0), *pads, (0, 0)))


# Reduction of a stride to stride 1


def images_space_to_depth(images: Array, geometry: Geometry) -> Array:
    """Pad the images and turn each block of stride x stride pixels into channels of one pixel.

    At stride 1 the images are returned as they are, without padding.
    """
    if geometry.strides == (1, 1):
        return images
    images = _pad(images, geometry.pads)
    rows, columns = geometry.unit_stride().image_size
    down, right = geometry.strides
    batch, height, width, channels = images.shape
    missing = (0, max(0, rows * down - height)), (0, max(0, columns * right - width))
    images = _pad(images, missing)[:, : rows * down, : columns * right]
    images = images.reshape(batch, rows, down, columns, right, channels)
    return images.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, -1)


def kernel_space_to_depth(kernel: Array, geometry: Geometry) -> Array:
    """Return the kernel that convolves `images_space_to_depth` at stride 1.

    At stride 1 the kernel is returned as it is.
    """
    if geometry.strides == (1, 1):
        return kernel
    rows, columns = geometry.unit_stride().kernel_size
    down, right = geometry.strides
    height, width, channels, features = kernel.shape
    missing = (0, rows * down - height), (0, columns * right - width)
    kernel = jnp.pad(kernel, (*missing, (0, 0), (0, 0)))
    kernel = kernel.reshape(rows, down, columns, right, channels, features)
    return kernel.transpose(0, 2, 1, 3, 4, 5).reshape(rows, columns, -1, features)
