"""What every network asks of its images."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def check_images(images: Array, fits: bool, network: str, takes: str) -> None:
    """Refuses images of a shape that does not fit, and pixels as they are stored.

    Args:
      images: what the network was called with.
      fits: whether their shape is one that it takes.
      network: its name.
      takes: those shapes, in words.

    Raises:
      ValueError: they do not fit.
      TypeError: they are not floating point.
    """
    if not fits:
        raise ValueError(f"{network} takes images {takes}, got {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"{network} takes normalized floating-point images, got {images.dtype}")
