"""The random transforms of images, and `normalize`, by eye and against other implementations."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import grid, noise

from jaxcnn.data import augment
from jaxcnn.data.augment import (
    affine,
    color_components,
    cutout,
    horizontal_flip,
    invert,
    normalize,
    pca_color,
    random_crop,
)

KEY = jax.random.key(0)


# All random functions, with what they need to act on images of three channels.
RANDOM = {
    "random_crop": jax.jit(functools.partial(random_crop, size=8, padding=2)),
    "horizontal_flip": jax.jit(horizontal_flip),
    "affine": jax.jit(
        functools.partial(affine, degrees=20, translate=2, scale=0.2, shear=10, squeeze=0.2, fill=9)
    ),
    "invert": jax.jit(functools.partial(invert, p=0.3)),
    "pca_color": jax.jit(functools.partial(pca_color, components=np.diag([30.0, 20.0, 10.0]))),
    "cutout": jax.jit(functools.partial(cutout, size=3)),
}
each_random = pytest.mark.parametrize("function", RANDOM.values(), ids=RANDOM.keys())


@each_random
def test_transforms_draw_for_each_image_from_the_key(function):
    images = jnp.tile(noise(1, 8, 8, 3), (16, 1, 1, 1))
    first = function(KEY, images)
    chex.assert_shape(first, (16, 8, 8, 3))
    chex.assert_trees_all_equal(first, function(KEY, images))
    assert (first != function(jax.random.key(1), images)).any()
    kinds = len(np.unique(np.asarray(first).reshape(16, -1), axis=0))
    assert kinds == 2 if function is RANDOM["horizontal_flip"] else kinds > 4


@each_random
def test_transforms_treat_each_image_alone(function):
    images = noise(16, 8, 8, 3)
    others = np.asarray(images).copy()
    others[1:] = 255 - others[1:]
    chex.assert_trees_all_equal(function(KEY, images)[0], function(KEY, jnp.asarray(others))[0])


@each_random
def test_transforms_work_under_jit_in_a_loop(function):
    images = noise(16, 8, 8, 3)

    def body(i, outputs):
        return function(jax.random.fold_in(KEY, i), images)

    looped = jax.jit(lambda: jax.lax.fori_loop(0, 3, body, jnp.zeros_like(images)))()
    # Where a weight is rounded another way, so is its pixel.
    chex.assert_trees_all_close(looped, body(2, images), atol=0.01)


@each_random
def test_transforms_are_the_same_on_two_devices(function):
    images = noise(16, 8, 8, 3)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    sharded = jax.jit(function, in_shardings=(everywhere, rows), out_shardings=rows)
    compiled = sharded.lower(KEY, images).compile()
    chex.assert_trees_all_close(compiled(KEY, images), function(KEY, images), atol=0.01)
    assert "all-gather" not in compiled.as_text()


@pytest.mark.parametrize("name", ["random_crop", "horizontal_flip", "invert", "cutout"])
def test_random_crop_and_others_keep_the_type_of_pixels(name):
    images = noise(16, 8, 8, 3, dtype=np.uint8)
    moved = RANDOM[name](KEY, images)
    assert moved.dtype == jnp.uint8
    floats = RANDOM[name](KEY, images.astype(jnp.float32))
    chex.assert_trees_all_equal(moved.astype(jnp.float32), floats)


@pytest.mark.parametrize("name", ["affine", "pca_color"])
def test_affine_and_others_give_float32(name):
    images = noise(16, 8, 8, 3, dtype=np.uint8)
    floats = RANDOM[name](KEY, images.astype(jnp.float32))
    assert floats.dtype == jnp.float32
    chex.assert_trees_all_equal(RANDOM[name](KEY, images), floats)


# Crops


def test_random_crop_chooses_every_place_equally():
    crops = random_crop(KEY, jnp.repeat(grid(1, 5, 4), 1200, axis=0), size=3)
    chex.assert_shape(crops, (1200, 3, 3, 1))
    corners, counts = np.unique(np.asarray(crops[:, 0, 0, 0]), return_counts=True)
    assert corners.tolist() == [0, 1, 4, 5, 8, 9]
    # 200 expected, with a standard deviation of 12.9.
    assert abs(counts - 200).max() < 5 * 12.9
    window = np.arange(3)[:, None] * 4 + np.arange(3)
    chex.assert_trees_all_equal(crops[..., 0] - crops[:, :1, :1, 0], np.tile(window, (1200, 1, 1)))


def test_random_crop_reaches_into_the_padding():
    image = grid(1, 2, 2) + 1  # 1 2 / 3 4
    crops = random_crop(KEY, jnp.repeat(image, 1200, axis=0), size=2, padding=1, fill=9)
    seen = {tuple(crop.tolist()) for crop in np.asarray(crops).reshape(1200, 4).astype(int)}
    framed = np.pad(np.array([[1, 2], [3, 4]]), 1, constant_values=9)
    expected = {
        tuple(framed[top : top + 2, left : left + 2].ravel().tolist())
        for top in range(3)
        for left in range(3)
    }
    assert seen == expected


def test_random_crop_of_the_whole_image_is_the_image():
    images = noise(1200, 6, 6, 2)
    chex.assert_trees_all_equal(random_crop(KEY, images, size=6), images)


# Flips


def test_horizontal_flip_mirrors_half_of_the_images():
    images = grid(1000, 2, 3)
    flipped = np.asarray(horizontal_flip(KEY, images))
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == np.asarray(images)).all(axis=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert abs(mirrored.sum() - 500) < 5 * 15.8  # five standard deviations


def test_horizontal_flip_twice_is_the_identity():
    images = noise(16, 8, 8, 3)
    chex.assert_trees_all_equal(
        RANDOM["horizontal_flip"](KEY, RANDOM["horizontal_flip"](KEY, images)), images
    )


# Affine


@pytest.mark.parametrize("shape", [(3, 5, 5, 1), (2, 4, 7, 3), (2, 1, 1, 1)])
def test_affine_without_ranges_keeps_the_bits(shape):
    images = jnp.asarray(np.asarray(noise(*shape)) / np.float32(255))
    chex.assert_trees_all_equal(jax.jit(affine)(KEY, images, fill=7.0), images)


@pytest.mark.parametrize("height", [7, 8])
def test_affine_squeezes_then_shears_turns_scales_and_shifts(monkeypatch, height):
    torch = pytest.importorskip("torch")
    width, fill = 9, 50.0
    degrees, translate, scale, shear, squeeze = 30.0, 2.5, 0.3, 15.0, 0.2
    # Each parameter at both ends of its range, in all combinations.
    draws = np.array(list(itertools.product([-1.0, 1.0], repeat=6)), np.float32)
    images = noise(64, height, width, 2)

    def uniform(_key, shape, _dtype, *, minval, maxval):
        of_both_ends = draws[:, :5].T if shape == (5, 64) else draws[:, 5:]
        return jnp.where(of_both_ends > 0, jnp.float32(maxval), jnp.float32(minval))

    monkeypatch.setattr(jax.random, "uniform", uniform)
    ranges = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
    function = functools.partial(affine, **ranges, squeeze=squeeze, fill=fill)
    actual = jax.jit(function)(KEY, images)

    half = np.array([width, height]) / 2  # torch's coordinates run from -1 to 1 over the image
    thetas = []
    for turned, slanted, scaled, down, right, wider in draws.astype(np.float64):
        a, slope = np.deg2rad(turned * degrees), np.tan(np.deg2rad(slanted * shear))
        # In torch's order, (right, down); upwards and counter-clockwise are against "down".
        turn = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
        slant = np.array([[1, -slope], [0, 1]])
        widen = np.diag([1 + wider * squeeze, 1 / (1 + wider * squeeze)])
        inverse = np.linalg.inv((1 + scaled * scale) * turn @ slant @ widen)
        shift = -inverse @ np.array([right, down]) * translate
        thetas.append(np.column_stack([inverse * half / half[:, None], shift / half]))
    pixels = torch.tensor(np.asarray(images).transpose(0, 3, 1, 2)).double() - fill
    places = torch.nn.functional.affine_grid(
        torch.tensor(np.stack(thetas)), list(pixels.shape), align_corners=False
    )
    expected = torch.nn.functional.grid_sample(
        pixels, places, padding_mode="zeros", align_corners=False
    )
    expected = expected.numpy().transpose(0, 2, 3, 1) + fill
    chex.assert_trees_all_close(actual, expected.astype(np.float32), atol=2e-3)


def test_affine_draws_from_all_of_its_ranges(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        augment, "warp", lambda _, inverse, shift, fill: drawn.update(inverse=inverse, shift=shift)
    )
    images = jnp.zeros((2000, 1, 1, 1))

    def draw(**ranges):
        affine(KEY, images, **ranges)
        return np.linalg.inv(np.asarray(drawn["inverse"])), np.asarray(drawn["shift"])

    def assert_fills(values, low, high):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.05 * (high - low)

    forward, shift = draw(translate=3)
    assert_fills(shift[:, 0], -3, 3)
    assert_fills(shift[:, 1], -3, 3)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.1
    forward, shift = draw(degrees=10)
    assert_fills(np.rad2deg(np.arctan2(forward[:, 0, 1], forward[:, 0, 0])), -10.001, 10.001)
    assert not shift.any()
    forward, _ = draw(scale=0.2)
    assert_fills(forward[:, 0, 0], 0.7999, 1.2001)
    forward, _ = draw(shear=10)
    assert_fills(np.rad2deg(np.arctan(forward[:, 1, 0])), -10.001, 10.001)
    forward, _ = draw(squeeze=0.2)
    assert_fills(forward[:, 1, 1], 0.7999, 1.2001)
    chex.assert_trees_all_close(forward[:, 0, 0] * forward[:, 1, 1], np.ones(2000), atol=1e-5)
    assert not forward[:, 0, 1].any() and not forward[:, 1, 0].any()
    forward, _ = draw(squeeze=0.2, degrees=10)
    turned = np.arctan2(forward[:, 0, 1], forward[:, 1, 1])
    assert abs(np.corrcoef(turned, np.linalg.norm(forward[:, :, 1], axis=1))[0, 1]) < 0.1
    # The draws of a run without squeeze stay what they were.
    squeezed, unsqueezed = (draw(shear=10, scale=0.2, squeeze=s)[0] for s in (0.5, 0.0))
    np.testing.assert_allclose(np.linalg.det(squeezed), np.linalg.det(unsqueezed), rtol=1e-4)


# Inverted pixels


def test_invert_inverts_pixels_with_its_probability():
    images = grid(200, 8, 8, 3, np.uint8)
    inverted = np.asarray(invert(KEY, images, p=0.1))
    changed = (inverted != images).all(-1)
    np.testing.assert_array_equal(inverted, np.where(changed[..., None], 255 - images, images))
    assert abs(changed.sum() - 1280) < 5 * 34  # five standard deviations
    # Neighbours are inverted independently of each other.
    assert abs((changed[:, :, 1:] & changed[:, :, :-1]).sum() - 112) < 5 * 11
    chex.assert_trees_all_equal(invert(KEY, images, p=0.0), images)
    chex.assert_trees_all_equal(invert(KEY, images, p=1.0), 255 - images)


# Colour


def test_color_components_are_eigenvectors_times_eigenvalues():
    directions = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0].T
    directions *= np.sign(directions[np.arange(3), abs(directions).argmax(1)])[:, None]
    # Two pixels at each end of each direction: the covariance is exact.
    stds = np.array([40.0, 20.0, 5.0])
    ends = np.concatenate([directions, -directions]) * np.tile(stds, 2)[:, None]
    pixels = np.array([100.0, 120.0, 140.0]) + np.sqrt(3) * ends
    components = color_components(pixels.reshape(3, 2, 1, 3).astype(np.float32))
    expected = 255 * ((stds / 255) ** 2)[:, None] * directions
    chex.assert_trees_all_close(components, expected.astype(np.float32), atol=1e-4)


def test_color_components_are_those_of_all_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2500, 2, 2, 3)).astype(np.uint8)
    images[1300:] //= 4
    components = color_components(images)
    covariance = np.cov(images.reshape(-1, 3).T / 255, bias=True)
    lengths = np.linalg.norm(components, axis=1)
    assert lengths[0] > lengths[1] > lengths[2]
    units = components / lengths[:, None]
    expected = units * lengths[:, None] / 255
    chex.assert_trees_all_close(units @ covariance, expected, atol=1e-6)


def test_pca_color_adds_a_normal_sum_of_components():
    components = np.array([[10.0, 20.0, 0.0], [-4.0, 2.0, 6.0], [0.0, 0.0, 1.0]], np.float32)
    images = noise(4000, 2, 3, 3)
    added = np.asarray(pca_color(KEY, images, components=components, std=0.5) - images)
    chex.assert_trees_all_close(added, np.broadcast_to(added[:, :1, :1], added.shape), atol=1e-4)
    amounts = added[:, 0, 0] @ np.linalg.inv(components)
    chex.assert_trees_all_close(amounts.mean(0), np.zeros(3, np.float32), atol=0.04)
    chex.assert_trees_all_close(np.cov(amounts.T), 0.25 * np.eye(3), atol=0.03)
    chex.assert_trees_all_equal(pca_color(KEY, images, components=components, std=0), images)


# Cutout


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout_chooses_every_center_equally(size):
    height, width = 3, 4
    images = jnp.ones((1200, height, width, 1))
    cut = np.asarray(cutout(KEY, images, size=size))[..., 0]
    patterns, counts = np.unique(cut.reshape(1200, -1), axis=0, return_counts=True)
    expected = set()
    for y in range(height):
        for x in range(width):
            image = np.ones((height, width))
            top, left = y - size // 2, x - size // 2
            image[max(top, 0) : top + size, max(left, 0) : left + size] = 0
            expected.add(tuple(image.ravel()))
    assert len(expected) == height * width
    assert {tuple(pattern.tolist()) for pattern in patterns} == expected
    assert abs(counts - 100).max() < 5 * 9.6  # five standard deviations


def test_cutout_fills_with_a_color():
    images = noise(1200, 4, 4, 3, dtype=np.uint8) // 2
    cut = np.asarray(cutout(KEY, images, size=2, fill=(200, 210.5, 220)))
    inside = (cut == [200, 210, 220]).all(-1)
    assert (inside.sum((1, 2)) >= 1).all()
    assert inside.sum((1, 2)).max() == 4
    assert (cut[~inside] == np.asarray(images)[~inside]).all()


# Normalization


def test_normalize_maps_pixels_to_minus_one_and_one():
    pixels = jnp.array([0, 51, 255], jnp.uint8).reshape(1, 1, 3, 1)
    expected = jnp.array([-1, -0.6, 1]).reshape(1, 1, 3, 1)
    chex.assert_trees_all_close(normalize(pixels, (0.5,), (0.5,)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.1307,), (0.3081,)), ((0.49, 0.48, 0.45), (0.25,)), ((0.1, 0.2, 0.3), (0.5, 0.25, 1.0))],
)
def test_normalize_takes_one_value_or_one_per_channel(mean, std):
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(2, 8, 16, 3)
    expected = (pixels / 255 - np.array(mean)) / np.array(std)
    actual = normalize(jnp.asarray(pixels), mean, std)
    chex.assert_trees_all_close(actual, expected.astype(np.float32), atol=1e-6)


def test_normalize_gives_the_same_bits_for_float_pixels():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    chex.assert_trees_all_equal(
        normalize(jnp.asarray(pixels, jnp.float32), (0.1307,), (0.3081,)),
        normalize(jnp.asarray(pixels), (0.1307,), (0.3081,)),
    )


@pytest.mark.parametrize(("mean", "std"), [((0.5, 0.5), (0.5,)), ((0.5,), (0.5, 0.5)), ((), (1,))])
def test_normalize_refuses_values_for_other_channels(mean, std):
    with pytest.raises(ValueError, match=r"(mean|std) has [02] values for images of 3 channels"):
        normalize(jnp.zeros((1, 2, 2, 3), jnp.uint8), mean, std)


# Errors

ALL = {
    **RANDOM,
    "color_components": lambda _, images: color_components(np.asarray(images)),
}


@pytest.mark.parametrize("function", ALL.values(), ids=ALL.keys())
def test_transforms_refuse_other_types_and_shapes(function):
    with pytest.raises(TypeError, match="images are int32; expected uint8 or float32"):
        function(KEY, jnp.zeros((1, 8, 8, 3), jnp.int32))
    with pytest.raises(ValueError, match=r"of shape \(8, 8, 3\); expected \[batch"):
        function(KEY, jnp.zeros((8, 8, 3)))


def test_normalize_refuses_other_types():
    with pytest.raises(TypeError, match="images are int32; expected uint8 or float32"):
        normalize(jnp.zeros((1, 2, 2, 1), jnp.int32), (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (random_crop, {"size": 0}, "size is 0 for images of 4 x 5 pixels"),
        (random_crop, {"size": 7, "padding": 1}, "size is 7 for images of 6 x 7 pixels"),
        (random_crop, {"size": 4, "padding": -1}, "padding is -1; expected at least 0"),
        (affine, {"degrees": -1}, "degrees is -1; expected at least 0 and below inf"),
        (affine, {"translate": float("nan")}, "translate is nan; expected at least 0"),
        (affine, {"scale": 1.0}, "scale is 1.0; expected at least 0 and below 1"),
        (affine, {"shear": 90}, "shear is 90; expected at least 0 and below 90"),
        (affine, {"squeeze": 1}, "squeeze is 1; expected at least 0 and below 1"),
        (invert, {"p": 1.5}, r"p is 1.5; expected a probability in \[0, 1\]"),
        (cutout, {"size": 0}, "size is 0; expected at least 1 pixel"),
        (cutout, {"size": 1, "fill": (1, 2)}, "fill has 2 values for images of 3 channels"),
        (pca_color, {"components": np.eye(1)}, r"\(1, 1\) for images of 3 channels; expected \(3"),
    ],
)
def test_transforms_refuse_arguments_that_do_not_fit(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(KEY, jnp.zeros((2, 4, 5, 3)), **arguments)
