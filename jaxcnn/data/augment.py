"""Random transforms of batches of images, and `normalize`: pure functions that run on the device.

Images are `[batch, height, width, channels]`, uint8 or float32, with pixels in [0, 255];
`normalize` is applied last. A function that only moves pixels keeps their type; one that computes
new values returns float32 and neither rounds nor clips. A random function takes a key first, draws
for each image independently, and returns the same images for the same key; the last bits of
interpolated values may differ between kinds of devices.

Every function raises TypeError for images that are neither uint8 nor float32 and, except
`normalize`, ValueError for images without four dimensions. `Raises:` lists further errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Real, UInt8

from jaxcnn.data.checks import as_float32, check_dtype, check_images, check_size
from jaxcnn.data.geometry import warp


def random_crop(
    key: jax.Array,
    images: Real[Array, "batch height width channels"],
    *,
    size: int,
    padding: int = 0,
    fill: float = 0,
) -> Real[Array, "batch size size channels"]:
    """Cut a square out of each image, at a uniformly random place.

    Args:
      key: random key of the places.
      images: uint8 or float32; the type is kept.
      size: height and width of the square in pixels.
      padding: number of pixels added to each side first.
      fill: value of the added pixels.

    Raises:
      ValueError: if `padding` is negative, or `size` is not between 1 and the padded image's.

    References:
      Krizhevsky et al. 2012, section 4.1: 224 of 256, no padding. He et al. 2016, section 4.2: 32
      of CIFAR's 32 with 4 pixels of padding.
    """
    check_images(images)
    if padding < 0:
        raise ValueError(f"padding is {padding}; expected at least 0 pixels.")
    sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(images, sides, constant_values=fill)
    check_size(size, padded)
    batch, height, width, channels = padded.shape
    limits = jnp.array([[height - size + 1], [width - size + 1]], jnp.int32)
    starts = jax.random.randint(key, (2, batch), 0, limits, jnp.int32)

    def cut(image: Array, top: Array, left: Array) -> Array:
        return lax.dynamic_slice(image, (top, left, np.int32(0)), (size, size, channels))

    # Up to 5 times as fast on a CPU as gathering rows, then columns.
    return jax.vmap(cut)(padded, starts[0], starts[1])


def horizontal_flip(
    key: jax.Array, images: Real[Array, "batch height width channels"]
) -> Real[Array, "batch height width channels"]:
    """Mirror each image left to right with probability 1/2.

    References:
      Krizhevsky et al. 2012, section 4.1.
    """
    check_images(images)
    mirrored = jax.random.bernoulli(key, jnp.float32(0.5), (len(images), 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def affine(
    key: jax.Array,
    images: Real[Array, "batch height width channels"],
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    squeeze: float = 0.0,
    fill: float = 0.0,
) -> Float[Array, "batch height width channels"]:
    """Squeeze, shear, rotate, scale and shift each image, in one bilinear interpolation.

    A pixel at p from the centre, in the order (down, right), goes to t + s R K Q p. The squeeze Q
    multiplies widths by q and divides heights by q, in [1 - `squeeze`, 1 + `squeeze`]; the shear K
    moves it to the right by tan(a) for each pixel upwards, a in +-`shear` degrees; the rotation R
    is by an angle in +-`degrees`, counter-clockwise if positive; s is in [1 - `scale`, 1 +
    `scale`], and t in +-`translate` pixels down and to the right. Every draw is uniform; with
    ranges of 0 the values of the pixels do not change.

    Args:
      key: random key of the draws.
      images: uint8 or float32.
      degrees: the largest rotation, at least 0.
      translate: the largest shift in pixels along each axis, at least 0.
      scale: the largest change of size, in [0, 1).
      shear: the largest shear in degrees, in [0, 90).
      squeeze: the largest change of width, in [0, 1).
      fill: value outside of the image.

    Raises:
      ValueError: if a range is outside of its limits.

    References:
      LeCun et al. 1998, section III.B: shifts, scaling, squeezing and horizontal shearing, without
      their amounts. Simard et al. 2003, section 2: affine warps with bilinear interpolation.
      Rotations are added here.
    """
    images = as_float32(images)
    ranges = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
    for name, value in (ranges | {"squeeze": squeeze}).items():
        limit = {"scale": 1, "shear": 90, "squeeze": 1}.get(name, math.inf)
        if not 0 <= value < limit:
            raise ValueError(f"{name} is {value}; expected at least 0 and below {limit}.")
    draws = jax.random.uniform(key, (5, len(images)), jnp.float32, minval=-1.0, maxval=1.0)
    angle = jnp.deg2rad(jnp.float32(degrees)) * draws[0]
    slope = jnp.tan(jnp.deg2rad(jnp.float32(shear)) * draws[1])
    size = 1 + scale * draws[2]
    cos, sin = jnp.cos(angle) / size, jnp.sin(angle) / size
    # The inverse of s R K, row by row: it maps an output pixel to its source.
    inverse = jnp.stack([cos, sin, slope * cos - sin, slope * sin + cos], axis=1)
    inverse = inverse.reshape(-1, 2, 2)
    if squeeze:  # a key of its own, so that the other draws are those of a run without it
        squeeze_key = jax.random.fold_in(key, 1)
        squeezes = jax.random.uniform(
            squeeze_key, (len(images), 1), jnp.float32, minval=1 - squeeze, maxval=1 + squeeze
        )
        inverse *= jnp.stack([squeezes, 1 / squeezes], axis=1)
    return warp(images, inverse, translate * draws[3:].T, fill=fill)


def invert(
    key: jax.Array, images: Real[Array, "batch height width channels"], *, p: float = 0.1
) -> Real[Array, "batch height width channels"]:
    """Invert each pixel with probability `p`, in all channels: 255 minus its value.

    Args:
      key: random key of the choice.
      images: uint8 or float32; the type is kept.
      p: probability in [0, 1].

    Raises:
      ValueError: if `p` is not in [0, 1].

    References:
      LeCun et al. 1998, figure 13: digits with "salt and pepper noise", p = 0.1.
    """
    check_images(images)
    if not 0 <= p <= 1:
        raise ValueError(f"p is {p}; expected a probability in [0, 1].")
    inverted = jax.random.bernoulli(key, jnp.float32(p), (*images.shape[:3], 1))
    return jnp.where(inverted, 255 - images, images)


def color_components(
    images: UInt8[np.ndarray, "examples height width channels"],
) -> Float[np.ndarray, "channels channels"]:
    """Compute the principal components of a training set's colours for `pca_color`, on the host.

    Row i is lambda_i p_i, the largest eigenvalue first: eigenvector and eigenvalue of the
    covariance of all pixels in [0, 1], times 255 to be added to raw pixels. The sign of an
    eigenvector is arbitrary; its largest entry is made positive.

    An eigenvalue is a variance, so lambda_i p_i as a colour depends on the unit of pixels, which
    the paper does not state. In [0, 255], colours would shift by a thousand grey levels; in [0, 1],
    at the paper's 0.1, they shift by about 5 of 255 for ImageNet (lambda_1 = 0.22) and 4 for
    CIFAR-10 (0.17). Torch's and MXNet's ImageNet recipes use [0, 1]. Krizhevsky's later code, cuda-
    convnet2, scales by what it calls standard deviations (which would be 11 of 255 for CIFAR-10),
    and divides the images by 1.1 afterwards.

    Args:
      images: a training set, uint8 or float32, on the host.
    """
    check_images(images)
    channels = images.shape[-1]
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for first in range(0, len(images), 1024):  # bounds the memory of the copies in float64
        pixels = images[first : first + 1024].reshape(-1, channels) / np.float64(255)
        total += pixels.sum(0)
        products += pixels.T @ pixels
    count = math.prod(images.shape[:-1])
    mean = total / count
    eigenvalues, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(channels)])
    return (255 * eigenvalues * vectors).T[::-1].astype(np.float32)


def pca_color(
    key: jax.Array,
    images: Real[Array, "batch height width channels"],
    *,
    components: Float[np.ndarray, "channels channels"],
    std: float = 0.1,
) -> Float[Array, "batch height width channels"]:
    """Add one random colour to all pixels of an image: [p1 p2 p3] [a1 lambda1, a2 ..., a3 ...].

    Each a is normal with mean 0 and standard deviation `std`, drawn for each image.

    Args:
      key: random key of the colours.
      images: uint8 or float32.
      components: rows lambda_i p_i, from `color_components`.
      std: standard deviation of the a.

    Raises:
      ValueError: if `components` is not `[channels, channels]`.

    References:
      Krizhevsky et al. 2012, section 4.1. See `color_components` for the unit of the eigenvalues.
    """
    images = as_float32(images)
    channels = images.shape[-1]
    if components.shape != (channels, channels):
        raise ValueError(
            f"components are of shape {components.shape} for images of {channels} channels; "
            f"expected {(channels, channels)}; compute them by color_components from such images."
        )
    amounts = std * jax.random.normal(key, (len(images), channels), jnp.float32)
    # A GPU or TPU would use reduced precision by default.
    colors = jnp.matmul(amounts, components, precision=lax.Precision.HIGHEST)
    return images + colors[:, None, None, :]


def cutout(
    key: jax.Array,
    images: Real[Array, "batch height width channels"],
    *,
    size: int,
    fill: float | Sequence[float] = 0,
) -> Real[Array, "batch height width channels"]:
    """Overwrite one square of each image; part of it may lie outside.

    Its centre is uniform over all pixels; a square of even `size` is centred on the pixel at the
    lower right of its middle.

    Args:
      key: random key of the places.
      images: uint8 or float32; the type is kept.
      size: height and width of the square in pixels, at least 1.
      fill: one value, or one for each channel; truncated to an integer for uint8 images.

    Raises:
      ValueError: if `size` is below 1, or `fill` has neither 1 nor `channels` values.

    References:
      DeVries and Taylor 2017, section 3.2; 16 is their size for CIFAR-10, 8 for CIFAR-100. They
      fill with 0 after normalization, which is the mean of the training set's pixels here.
    """
    check_images(images)
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel.")
    batch, height, width, channels = images.shape
    values = jnp.asarray(fill, images.dtype).reshape(-1)
    if len(values) not in (1, channels):
        raise ValueError(
            f"fill has {len(values)} values for images of {channels} channels; "
            f"expected 1 or {channels}."
        )
    limits = jnp.array([[height], [width]], jnp.int32)
    centers = jax.random.randint(key, (2, batch), 0, limits, jnp.int32)
    starts = centers - size // 2

    def covered(start: Array, length: int) -> Array:
        distance = jnp.arange(length, dtype=jnp.int32)[None, :] - start[:, None]
        return (0 <= distance) & (distance < size)

    rows, columns = covered(starts[0], height), covered(starts[1], width)
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, values.reshape(1, 1, 1, -1), images)


def normalize(
    images: Real[Array, "batch height width channels"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Array, "batch height width channels"]:
    """Normalize pixels in [0, 255] to float32: `(pixel / 255 - mean) / std`.

    Args:
      images: uint8 or float32.
      mean: one value, or one for each channel, for pixels in [0, 1].
      std: one positive value, or one for each channel, for pixels in [0, 1].

    Raises:
      TypeError: the images are neither uint8 nor float32.
      ValueError: the length of `mean` or `std` is neither 1 nor the number of channels.
    """
    check_dtype(images)
    channels = images.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"{name} has {len(values)} values for images of {channels} channels; "
                f"expected 1 or {channels}."
            )
    # Folded into one multiplication and one addition per pixel.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    offset = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (-1,)
    return images.astype(jnp.float32) * scale.reshape(shape) + offset.reshape(shape)
