"""Checks that every network applies to its images."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def check_images(images: Array, fits: bool, network: str, expected: str) -> None:
    """Raise an error for images of the wrong shape, and for raw images.

    Args:
      images: images that the network was called with.
      fits: whether their shape is valid.
      network: name of the network, for the error.
      expected: valid shapes, for the error.

    Raises:
      ValueError: the shape is not valid.
      TypeError: the images are not floating point.
    """
    if not fits:
        raise ValueError(
            f"images have shape {images.shape}; expected {expected} for {network}; resize or "
            "crop them"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(
            f"images are {images.dtype}; expected floating point for {network}; normalize them"
        )
