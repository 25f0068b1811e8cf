"""Deterministic transforms of the geometry of batches of images, which run on the device.

Images are as in `augment.py`: `[batch, height, width, channels]`, uint8 or float32, with pixels in
[0, 255]. A function that only moves pixels keeps their type; one that computes new values returns
float32 and neither rounds nor clips.

Every function raises TypeError for images that are neither uint8 nor float32 and ValueError for
images without four dimensions. `Raises:` lists further errors.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Real

from jaxcnn.data.checks import as_float32, check_images, check_size


def center_crop(
    images: Real[Array, "batch height width channels"], *, size: int
) -> Real[Array, "batch size size channels"]:
    """Cut out the central square; an odd margin is one pixel larger at the bottom and right.

    Args:
      images: uint8 or float32; the type is kept.
      size: height and width of the square in pixels.

    Raises:
      ValueError: if `size` is not between 1 and the image's.
    """
    check_images(images)
    check_size(size, images)
    top, left = (images.shape[1] - size) // 2, (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]


def center_crop_or_pad(
    images: Real[Array, "batch height width channels"], *, size: int
) -> Real[Array, "batch size size channels"]:
    """Cut images to their central square, or pad them to it with zeros.

    An odd number of pixels is divided as by `center_crop`: one more at the bottom and right.

    Args:
      images: uint8 or float32; the type is kept.
      size: height and width of the square in pixels, at least 1.

    Raises:
      ValueError: if `size` is below 1.
    """
    check_images(images)
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel.")
    added = [size - side for side in images.shape[1:3]]
    sides = [(0, 0, 0), *((int(n / 2), n - int(n / 2), 0) for n in added), (0, 0, 0)]
    return lax.pad(images, jnp.zeros((), images.dtype), sides)


def views(
    images: Real[Array, "batch height width channels"], *, size: int, flips: bool
) -> Real[Array, "batch views size size channels"]:
    """Cut the four corners and the centre of each image.

    Args:
      images: uint8 or float32; the type is kept.
      size: height and width of a view in pixels.
      flips: whether to append the mirror images of the five.

    Returns:
      5 or 10 views: top left, top right, bottom left, bottom right, centre; their mirror images.

    Raises:
      ValueError: if `size` is not between 1 and the image's.

    References:
      Krizhevsky et al. 2012, section 4.1: the softmax outputs of ten views of 224 are averaged.
    """
    center = center_crop(images, size=size)
    bottom, right = images.shape[1] - size, images.shape[2] - size
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    corners = [images[:, top : top + size, left : left + size] for top, left in places]
    five = jnp.stack([*corners, center], axis=1)
    return jnp.concatenate([five, five[:, :, :, ::-1]], axis=1) if flips else five


def resize(
    images: Real[Array, "batch height width channels"], *, size: int
) -> Float[Array, "batch size size channels"]:
    """Resample to a square by bilinear interpolation, antialiased where it shrinks.

    Pixels are squares with their value at the centre, and edges are repeated outwards, as in
    PyTorch (`align_corners=False`; `antialias=True` where it shrinks) and in Pillow, which rounds
    to whole pixels: 224 from 32 is within 1 of Pillow's.

    Args:
      images: uint8 or float32.
      size: the new height and width in pixels, at least 1.

    Raises:
      ValueError: if `size` is below 1.
    """
    images = as_float32(images)
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel.")
    shape = (images.shape[0], size, size, images.shape[-1])
    return jax.image.resize(images, shape, method="bilinear")


def warp(
    images: Real[Array, "batch height width channels"],
    inverse: Float[Array, "batch 2 2"],
    shift: Float[Array, "batch 2"],
    *,
    fill: float = 0.0,
) -> Float[Array, "batch height width channels"]:
    """Sample each output pixel p, relative to the centre, at `inverse` (p - `shift`) of the input.

    Values between pixels are bilinear. Beyond the outermost pixels they change to `fill` within one
    pixel, as if the image lay on an infinite plane of that value.

    Args:
      images: uint8 or float32.
      inverse: matrices that map (down, right) of the output to the input.
      shift: shifts (down, right) in pixels.
      fill: value outside of the image.
    """
    images = as_float32(images)
    _, height, width, channels = images.shape
    # A border of one pixel is enough, because positions beyond it are clipped to it.
    framed = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
    down = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    right = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2

    def source(image: Array, inverse: Array, shift: Array) -> Array:
        y, x = down - shift[0], right - shift[1]
        row = inverse[0, 0] * y + inverse[0, 1] * x + (height + 1) / 2
        column = inverse[1, 0] * y + inverse[1, 1] * x + (width + 1) / 2
        row, column = jnp.clip(row, 0, height + 1), jnp.clip(column, 0, width + 1)
        top, left = jnp.minimum(jnp.floor(row), height), jnp.minimum(jnp.floor(column), width)
        first = (top * (width + 2) + left).astype(jnp.int32)
        below, after = (row - top)[..., None], (column - left)[..., None]
        pixels = image.reshape(-1, channels)

        def between(first: Array) -> Array:
            one, other = (pixels.at[i].get(mode="clip") for i in (first, first + 1))
            return (1 - after) * one + after * other

        return (1 - below) * between(first) + below * between(first + width + 2)

    # Gathering the four neighbours at once takes twice as long on a CPU.
    return jax.vmap(source)(framed, inverse, shift)


def deslant(
    images: Real[Array, "batch height width channels"],
) -> Float[Array, "batch height width channels"]:
    """Shift the lines of each image horizontally until the principal axis of its ink is vertical.

    The ink of a pixel is 1 if its value, the mean over the channels, is above half of 255, and else
    0. The shear about the centre of the ink removes the covariance of its rows and columns. Values
    between pixels are linear, and 0 outside of the image. Images whose ink lies in one line, or
    that have none, do not change.

    Args:
      images: uint8 or float32, bright ink on a background of 0.

    References:
      LeCun et al. 1998, section III.A: second moments of inertia, a foreground pixel counting as 1
      and a background pixel as 0. The threshold is a choice of ours.
    """
    images = as_float32(images)
    _, height, width, _ = images.shape
    down = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    right = jnp.arange(width, dtype=jnp.float32)[None, :] - (width - 1) / 2

    def slant(image: Array) -> tuple[Array, Array]:
        """Return the shift to the right for each line downwards, and the centre, of the ink."""
        ink = (image.mean(-1) > 255 / 2).astype(jnp.float32)
        center = (ink * down).sum() / jnp.maximum(ink.sum(), 1)
        variance = (ink * (down - center) ** 2).sum()
        slope = (ink * (down - center) * right).sum() / jnp.where(variance > 0, variance, 1)
        return slope, center

    slope, center = jax.vmap(slant)(images)
    one, zero = jnp.ones_like(slope), jnp.zeros_like(slope)
    inverse = jnp.stack([one, zero, slope, one], axis=1).reshape(-1, 2, 2)
    return warp(images, inverse, jnp.stack([zero, slope * center], axis=1))
