"""Checks that the transforms of images share."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def check_dtype(images: Array | np.ndarray) -> None:
    """Raise TypeError unless pixels are uint8 or float32."""
    if images.dtype not in (jnp.uint8, jnp.float32):
        raise TypeError(
            f"images are {images.dtype}; expected uint8 or float32 pixels in [0, 255]: cast them."
        )


def check_images(images: Array | np.ndarray) -> None:
    """Raise TypeError for another type of pixels, ValueError for images without 4 dimensions."""
    check_dtype(images)
    if images.ndim != 4:
        raise ValueError(
            f"images are of shape {images.shape}; expected [batch, height, width, channels]."
        )


def check_size(size: int, images: Array) -> None:
    """Raise ValueError unless a square of `size` pixels is a part of the images."""
    height, width = images.shape[1:3]
    if not 1 <= size <= min(height, width):
        raise ValueError(
            f"size is {size} for images of {height} x {width} pixels, padding included; expected "
            f"between 1 and {min(height, width)}."
        )


def as_float32(images: Array) -> Array:
    """Return the images as float32, once `check_images` has passed."""
    check_images(images)
    return images.astype(jnp.float32)
