"""Checks that every network applies to its images."""

import jax.numpy as jnp
import pytest

from jaxcnn.models.checks import check_images


def test_check_images_accepts_normalized_images():
    for dtype in (jnp.float32, jnp.bfloat16):
        check_images(jnp.zeros((1, 4, 4, 1), dtype), True, "Tiny", "[batch, 4, 4, 1]")


def test_check_images_says_which_shapes_fit():
    message = r"images have shape \(1, 5\); expected \[batch, 4, 4, 1\] for Tiny"
    with pytest.raises(ValueError, match=message):
        check_images(jnp.zeros((1, 5)), False, "Tiny", "[batch, 4, 4, 1]")


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
def test_check_images_refuses_raw_pixels(dtype):
    with pytest.raises(TypeError, match="images are .*; expected floating point for Tiny"):
        check_images(jnp.zeros((1, 4, 4, 1), dtype), True, "Tiny", "[batch, 4, 4, 1]")
