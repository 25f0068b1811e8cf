"""A config's transforms put together."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.data import augment, geometry
from jaxcnn.data.preprocess import make_preprocess
from jaxcnn.data.transforms import (
    TRANSFORMS,
    Affine,
    CenterCrop,
    Cutout,
    Deslant,
    HorizontalFlip,
    Invert,
    PCAColor,
    RandomCrop,
    Resize,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), np.uint8)
MEAN, STD = (0.2, 0.4, 0.6), (0.5, 0.25, 0.125)
KEY = jax.random.key(0)


def composed(*transforms):
    return map(jax.jit, make_preprocess(transforms, lambda: IMAGES, MEAN, STD))


def normalized(images):
    return (np.asarray(images, np.float32) / 255 - np.float32(MEAN)) / np.float32(STD)


def test_make_preprocess_normalizes_without_transforms():
    training, evaluation = composed()
    chex.assert_trees_all_close(training(KEY, IMAGES), normalized(IMAGES), rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(training(KEY, IMAGES), evaluation(IMAGES))


def keys(num_transforms):
    return [jax.random.fold_in(KEY, i) for i in range(num_transforms)]


# Each transform, and its functions in training and evaluation; None in evaluation is nothing.
COMPONENTS = augment.color_components(IMAGES)
CASES = {
    "resize": (
        Resize(6),
        lambda _, x: geometry.resize(x, size=6),
        lambda x: geometry.resize(x, size=6),
    ),
    "crop": (
        RandomCrop(6, 2),
        lambda key, x: augment.random_crop(key, x, size=6, padding=2),
        lambda x: geometry.center_crop(x, size=6),
    ),
    "center-crop": (
        CenterCrop(15),
        lambda _, x: geometry.center_crop_or_pad(x, size=15),
        lambda x: geometry.center_crop_or_pad(x, size=15),
    ),
    "flip": (HorizontalFlip(), augment.horizontal_flip, None),
    "affine": (
        Affine(10.0, 2.0, 0.1, 5.0, 0.2),
        lambda key, x: augment.affine(
            key, x, degrees=10, translate=2, scale=0.1, shear=5, squeeze=0.2
        ),
        None,
    ),
    "deslant": (Deslant(), lambda _, x: geometry.deslant(x), geometry.deslant),
    "invert": (Invert(0.2), lambda key, x: augment.invert(key, x, p=0.2), None),
    "pca-color": (
        PCAColor(0.3),
        lambda key, x: augment.pca_color(key, x, components=COMPONENTS, std=0.3),
        None,
    ),
    "cutout": (
        Cutout(5),
        lambda key, x: augment.cutout(key, x, size=5, fill=[255 * m for m in MEAN]),
        None,
    ),
}


def test_every_transform_has_a_case():
    assert CASES.keys() == TRANSFORMS.keys()
    for name, (transform, _, _) in CASES.items():
        assert isinstance(transform, TRANSFORMS[name])


@pytest.mark.parametrize("name", CASES)
def test_make_preprocess_calls_the_function_of_a_transform(name):
    transform, random, fixed = CASES[name]
    training, evaluation = composed(transform)
    expected = normalized(random(keys(1)[0], jnp.asarray(IMAGES)))
    chex.assert_trees_all_close(training(KEY, IMAGES), expected, rtol=1e-4, atol=1e-4)
    expected = normalized(fixed(jnp.asarray(IMAGES)) if fixed else IMAGES)
    chex.assert_trees_all_close(evaluation(IMAGES), expected, rtol=1e-4, atol=1e-4)


def test_make_preprocess_gives_an_image_and_its_mirror_image():
    _, evaluation = make_preprocess((Resize(10), RandomCrop(6)), lambda: IMAGES, MEAN, STD)
    one, two = (jax.jit(evaluation, static_argnums=1)(IMAGES, views) for views in (1, 2))
    chex.assert_trees_all_equal(two[::2], one)
    chex.assert_trees_all_equal(two[1::2], one[:, :, ::-1])


@pytest.mark.parametrize("views", [5, 10])
def test_make_preprocess_cuts_views_where_the_crop_stands(views):
    transforms = Resize(10), HorizontalFlip(), RandomCrop(6, 2), Resize(3), RandomCrop(3)
    _, evaluation = make_preprocess(transforms, IMAGES, MEAN, STD)
    cut = geometry.views(geometry.resize(IMAGES, size=10), size=6, flips=views == 10)
    chex.assert_shape(cut, (8, views, 6, 6, 3))
    expected = [normalized(geometry.resize(image, size=3)) for image in cut]
    actual = jax.jit(evaluation, static_argnums=1)(IMAGES, views)
    chex.assert_trees_all_close(actual, np.concatenate(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "transforms", [(), (HorizontalFlip(),), (RandomCrop(12, 2),), (RandomCrop(10), RandomCrop(8))]
)
def test_make_preprocess_refuses_views_without_a_smaller_crop(transforms):
    _, evaluation = make_preprocess(transforms, IMAGES, MEAN, STD)
    with pytest.raises(
        ValueError, match="10 views are parts of an image, but no transform of the run is a crop"
    ):
        evaluation(IMAGES, 10)


def test_make_preprocess_applies_transforms_in_order_with_a_key_each():
    training, evaluation = composed(RandomCrop(10), RandomCrop(6), HorizontalFlip())
    first, second, third = keys(3)
    expected = augment.random_crop(first, jnp.asarray(IMAGES), size=10)
    expected = augment.random_crop(second, expected, size=6)
    expected = normalized(augment.horizontal_flip(third, expected))
    chex.assert_trees_all_close(training(KEY, IMAGES), expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_close(evaluation(IMAGES), normalized(IMAGES[:, 3:9, 3:9]), atol=1e-5)
