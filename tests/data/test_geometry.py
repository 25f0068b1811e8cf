"""The deterministic transforms of images, by eye and against other implementations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import grid, noise

from jaxcnn.data.geometry import (
    center_crop,
    center_crop_or_pad,
    deslant,
    resize,
    views,
    warp,
)

SHIFT_0 = jnp.zeros((1, 2))
IDENTITY = jnp.eye(2)[None]


# Crops and views


def test_center_crop_by_eye():
    assert center_crop(grid(1, 4, 5), size=2)[0, ..., 0].tolist() == [[6, 7], [11, 12]]
    assert center_crop(grid(1, 4, 5), size=3)[0, ..., 0].tolist() == [
        [1, 2, 3],
        [6, 7, 8],
        [11, 12, 13],
    ]


def test_center_crop_or_pad_by_eye():
    assert center_crop_or_pad(grid(1, 2, 5) + 1, size=3)[0, ..., 0].tolist() == [
        [2, 3, 4],
        [7, 8, 9],
        [0, 0, 0],
    ]
    assert center_crop_or_pad(grid(1, 3, 1) + 1, size=4)[0, ..., 0].tolist() == [
        [0, 1, 0, 0],
        [0, 2, 0, 0],
        [0, 3, 0, 0],
        [0, 0, 0, 0],
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_center_crop_or_pad_cuts_as_center_crop(size):
    images = noise(2, 4, 5, 3, dtype=np.uint8)
    expected = center_crop(images, size=size)
    chex.assert_trees_all_equal(center_crop_or_pad(images, size=size), expected)
    padded = center_crop_or_pad(images, size=size + 5)
    assert padded.dtype == jnp.uint8 and padded.sum() == images.sum()
    chex.assert_trees_all_equal(center_crop_or_pad(padded, size=size), expected)


def test_views_are_the_corners_the_centre_and_their_mirror_images():
    images = grid(2, 4, 4)
    ten = views(images, size=2, flips=True)
    chex.assert_shape(ten, (2, 10, 2, 2, 1))
    assert ten[0, :, :, :, 0].astype(int).tolist() == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[8, 9], [12, 13]],
        [[10, 11], [14, 15]],
        [[5, 6], [9, 10]],
        [[1, 0], [5, 4]],
        [[3, 2], [7, 6]],
        [[9, 8], [13, 12]],
        [[11, 10], [15, 14]],
        [[6, 5], [10, 9]],
    ]
    chex.assert_trees_all_equal(ten[1], ten[0] + 16)
    chex.assert_trees_all_equal(views(images, size=2, flips=False), ten[:, :5])


# Warps

jitted_warp = jax.jit(warp)


@pytest.mark.parametrize("size", [5, 6])
def test_warp_turns_counter_clockwise(size):
    image = noise(1, size, size, 2)
    turned = jitted_warp(image, jnp.array([[[0.0, 1.0], [-1.0, 0.0]]]), SHIFT_0)
    chex.assert_trees_all_equal(turned[0], np.rot90(image[0]))


def test_warp_shifts_down_and_right():
    shifted = jitted_warp(grid(1, 3, 3), IDENTITY, jnp.array([[1.0, -1.0]]), fill=99)
    assert shifted[0, ..., 0].tolist() == [[99, 99, 99], [1, 2, 99], [4, 5, 99]]


def test_warp_interpolates_between_neighbors_and_fill():
    shifted = jitted_warp(grid(1, 1, 3), IDENTITY, jnp.array([[0.0, 0.5]]), fill=10)
    assert shifted[0, ..., 0].tolist() == [[5, 0.5, 1.5]]


def test_warp_fills_far_outside():
    far = jnp.array([[1000.0, -1000.0], [-4.5, 0.0]])
    shifted = jitted_warp(noise(2, 4, 4, 2), jnp.repeat(IDENTITY, 2, axis=0), far, fill=3)
    chex.assert_trees_all_equal(shifted, jnp.full_like(shifted, 3))


def test_warp_scales_about_the_center():
    larger = jitted_warp(grid(1, 3, 3), IDENTITY / 2, SHIFT_0)
    assert larger[0, ..., 0].tolist() == [[2, 2.5, 3], [3.5, 4, 4.5], [5, 5.5, 6]]


# Deslanting


def deslanted(image):
    """Shift each line of an image [height, width], as LeCun et al. 1998, section III.A say."""
    height, width = image.shape
    ink = [(y, x) for y in range(height) for x in range(width) if image[y, x] > 127.5]
    y_mean, x_mean = np.mean(ink, axis=0)
    mu_11 = sum((y - y_mean) * (x - x_mean) for y, x in ink)
    mu_02 = sum((y - y_mean) ** 2 for y, _ in ink)
    moved, columns = np.zeros((height, width)), np.arange(width)
    for y, line in enumerate(image):
        source = columns + mu_11 / mu_02 * (y - y_mean)
        moved[y] = np.interp(source, np.arange(-1, width + 1), np.pad(line, 1))
    return moved


def slant(image):
    """Return the shift to the right for each line downwards that makes the ink upright."""
    down, right = np.nonzero(image > 127.5)
    return np.cov(down, right)[0, 1] / down.var(ddof=1)


def test_deslant_equals_a_loop_over_lines_and_makes_bars_upright():
    slopes = np.array([-0.8, -0.3, 0.0, 0.25, 0.7])[:, None, None]
    down, right = np.mgrid[-11.0:12, -13.0:14]
    bars = abs(right - 1 - slopes * (down - 2)) < 3 - abs(down) / 6  # off the centre, wider there
    images = np.where(bars, noise(5, 23, 27) / 2 + 127, noise(5, 23, 27) / 4).astype(np.float32)
    actual = np.asarray(jax.jit(deslant)(images[..., None]))[..., 0]
    np.testing.assert_allclose(actual, [deslanted(image) for image in images], atol=1e-2)
    assert min(abs(slant(image)) for image in images[[0, 1, 3, 4]]) > 0.2
    assert max(abs(slant(image)) for image in actual) < 0.05


def test_deslant_does_not_change_what_has_no_slant():
    empty, line, dot = np.zeros((3, 6, 7, 3), np.uint8)
    line[3, 1:5] = 200
    dot[2, 2] = 200
    faint = np.full((6, 7, 3), 100, np.uint8)
    images = np.stack([empty, line, dot, faint])
    chex.assert_trees_all_equal(deslant(jnp.asarray(images)), images.astype(np.float32))


# Resizing


def test_resize_by_eye():
    assert resize(grid(1, 1, 2) * 4, size=4)[0, :, :, 0].tolist() == [[0, 1, 3, 4]] * 4
    halved = resize(jnp.repeat(grid(1, 4, 1) * 8, 4, axis=2), size=2)
    # Weights 1, 3, 3, 1 of 8; at the border without what lies outside, of 7.
    expected = np.array([[40 / 7, 128 / 7]], np.float32).T.repeat(2, axis=1)
    chex.assert_trees_all_close(halved[0, ..., 0], expected, rtol=1e-6)


@pytest.mark.parametrize("height", [32, 45])
@pytest.mark.parametrize("size", [224, 33, 32, 24, 7])
def test_resize_equals_torch(height, size):
    torch = pytest.importorskip("torch")
    images = noise(2, height, 32, 3) / 255
    expected = torch.nn.functional.interpolate(
        torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)),
        size=(size, size),
        mode="bilinear",
        align_corners=False,
        antialias=True,  # which changes nothing where it enlarges
    )
    expected = expected.numpy().transpose(0, 2, 3, 1)
    chex.assert_trees_all_close(resize(images, size=size), expected, atol=1e-5)


@pytest.mark.parametrize("size", [224, 24])
def test_resize_equals_pillow_up_to_rounding(size):
    image_module = pytest.importorskip("PIL.Image")
    images = noise(1, 32, 32, 3, dtype=np.uint8)
    pillow = image_module.fromarray(np.asarray(images[0]))
    expected = np.asarray(pillow.resize((size, size), image_module.Resampling.BILINEAR))
    # Pillow rounds to whole pixels twice, after the rows and after the columns.
    assert abs(np.asarray(resize(images, size=size)[0]) - expected).max() <= 1.01


# Errors

ALL = {
    "center_crop": lambda images: center_crop(images, size=2),
    "center_crop_or_pad": lambda images: center_crop_or_pad(images, size=2),
    "views": lambda images: views(images, size=2, flips=True),
    "warp": lambda images: warp(images, IDENTITY, SHIFT_0),
    "resize": lambda images: resize(images, size=2),
    "deslant": deslant,
}


@pytest.mark.parametrize("function", ALL.values(), ids=ALL.keys())
def test_transforms_refuse_other_types_and_shapes(function):
    with pytest.raises(TypeError, match="images are int32; expected uint8 or float32"):
        function(jnp.zeros((1, 8, 8, 3), jnp.int32))
    with pytest.raises(ValueError, match=r"of shape \(8, 8, 3\); expected \[batch"):
        function(jnp.zeros((8, 8, 3)))


def test_center_crop_views_and_resize_refuse_sizes_that_do_not_fit():
    images = jnp.zeros((2, 4, 5, 3))
    with pytest.raises(ValueError, match="size is 5 for images of 4 x 5 pixels"):
        center_crop(images, size=5)
    with pytest.raises(ValueError, match="size is 5 for images of 4 x 5 pixels"):
        views(images, size=5, flips=False)
    for function in (resize, center_crop_or_pad):
        with pytest.raises(ValueError, match="size is 0; expected at least 1 pixel"):
            function(images, size=0)
