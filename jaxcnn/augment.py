"""From stored images to what a network sees: pure functions on whole batches, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def normalize(
    images: UInt8[Array, "batch height width channels"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Array, "batch height width channels"]:
    """Pixels in [0, 255] to float32: `(pixel / 255 - mean) / std`.

    Args:
      images: uint8 images.
      mean: one value, or one for each channel; in units of pixels in [0, 1].
      std: the same; positive.

    Raises:
      TypeError: the images are not uint8.
      ValueError: the length of `mean` or `std` is neither 1 nor the number of channels.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"normalize takes uint8 images, got {images.dtype}")
    channels = images.shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ValueError(
                f"{name} has {len(values)} values for images of {channels} channels: "
                f"give one value, or {channels}"
            )
    # One multiplication and one addition a pixel.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    offset = -jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (-1,)
    return images.astype(jnp.float32) * scale.reshape(shape) + offset.reshape(shape)
