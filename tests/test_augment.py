import chex
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.augment import normalize


def test_pixels_to_minus_one_and_one():
    pixels = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    expected = jnp.array([-1, -0.6, 1]).reshape(1, 1, 3, 1)
    chex.assert_trees_all_close(normalize(pixels, (0.5,), (0.5,)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.1307,), (0.3081,)), ((0.49, 0.48, 0.45), (0.25,)), ((0.1, 0.2, 0.3), (0.5, 0.25, 1.0))],
)
def test_one_value_or_one_for_each_channel(mean, std):
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(2, 8, 16, 3)
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    actual = normalize(jnp.asarray(pixels), mean, std)
    chex.assert_trees_all_close(actual, expected.astype(np.float32), atol=1e-6)


def test_what_is_normalized_already_is_refused():
    with pytest.raises(TypeError, match="takes uint8 images, got float32"):
        normalize(jnp.zeros((1, 2, 2, 1)), (0.5,), (0.5,))


@pytest.mark.parametrize(("mean", "std"), [((0.5, 0.5), (0.5,)), ((0.5,), (0.5, 0.5)), ((), (1,))])
def test_values_for_other_channels_are_refused(mean, std):
    with pytest.raises(ValueError, match=r"(mean|std) has [02] values for images of 3 channels"):
        normalize(jnp.zeros((1, 2, 2, 3), jnp.uint8), mean, std)
