"""From stored images to what a network sees: a config's transforms put together, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxcnn.data import augment
from jaxcnn.data.transforms import (
    Affine,
    Cutout,
    HorizontalFlip,
    PCAColor,
    RandomCrop,
    Resize,
    Transform,
)


class Preprocess(NamedTuple):
    """The two ways from raw images to the network's input.

    Attributes:
      train: `(key, images) -> images`, with random draws.
      evaluate: `(images, views=1) -> images`, always the same; an image's views are consecutive.
    """

    train: Callable[[jax.Array, Array], Array]
    evaluate: Callable[..., Array]


def make_preprocess(
    transforms: Sequence[Transform],
    sample: Callable[[], UInt8[np.ndarray, "examples height width channels"]],
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> Preprocess:
    """Both ways through the transforms and `augment.normalize`, for batches of stored images.

    Args:
      transforms: in the order they are applied.
      sample: training images, whose colours `PCAColor` takes its components from.
      pixel_mean: as `augment.normalize` takes it.
      pixel_std: likewise.

    Returns:
      `(key, images) -> images` for training, and `(images, views=1) -> images` for evaluation,
      which does the same each time: what is drawn by chance is left out, and a crop is the one at
      the centre. With 2 views it is that and its mirror image, with 5 or 10 those of
      `augment.views`, an image's one after the other; there is a ValueError if they cannot be cut.
    """
    normalize = functools.partial(augment.normalize, mean=pixel_mean, std=pixel_std)
    random = [_random(transform, sample, pixel_mean) for transform in transforms]

    def for_training(key: jax.Array, images: Array) -> Array:
        for i, function in enumerate(random):
            images = function(jax.random.fold_in(key, i), images)
        return normalize(images)

    def for_evaluation(images: Array, views: int = 1) -> Array:
        num_views = views * len(images)
        for transform in transforms:
            images = _fixed(transform, images, views)
        if views == 2:
            images = jnp.stack([images, images[:, :, ::-1]], axis=1)
            images = images.reshape(-1, *images.shape[2:])
        if len(images) != num_views:
            raise ValueError(
                f"{views} views need one crop among the transforms, smaller than the images"
            )
        return normalize(images)

    return Preprocess(for_training, for_evaluation)


def _random(
    transform: Transform, sample: Callable[[], np.ndarray], pixel_mean: Sequence[float]
) -> Callable[[jax.Array, Array], Array]:
    match transform:
        case Resize(size):
            return lambda _, images: augment.resize(images, size=size)
        case RandomCrop(size, padding):
            return functools.partial(augment.random_crop, size=size, padding=padding)
        case HorizontalFlip():
            return augment.horizontal_flip
        case Affine(degrees, translate, scale, shear):
            return functools.partial(
                augment.affine, degrees=degrees, translate=translate, scale=scale, shear=shear
            )
        case PCAColor(std):
            components = augment.color_components(sample())
            return functools.partial(augment.pca_color, components=components, std=std)
        case Cutout(size):
            fill = [255 * mean for mean in pixel_mean]
            return functools.partial(augment.cutout, size=size, fill=fill)


def _fixed(transform: Transform, images: Array, views: int) -> Array:
    match transform:
        case Resize(size):
            return augment.resize(images, size=size)
        case RandomCrop(size) if views in (5, 10) and images.shape[1:3] != (size, size):
            cut = augment.views(images, size=size, flips=views == 10)
            return cut.reshape(-1, *cut.shape[2:])
        case RandomCrop(size):
            return augment.center_crop(images, size=size)
        case _:
            return images
