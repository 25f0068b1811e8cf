"""From stored images to what a network sees: a config's transforms put together, on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Array, UInt8

from jaxcnn import augment
from jaxcnn.transforms import (
    Affine,
    Cutout,
    HorizontalFlip,
    PCAColor,
    RandomCrop,
    Resize,
    Transform,
)


def compose(
    transforms: Sequence[Transform],
    train_images: UInt8[np.ndarray, "examples height width channels"],
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> tuple[Callable[[jax.Array, Array], Array], Callable[[Array], Array]]:
    """Both ways through the transforms and `augment.normalize`, for batches of stored images.

    Args:
      transforms: in the order they are applied.
      train_images: whose colours `PCAColor` takes its components from.
      pixel_mean: as `augment.normalize` takes it.
      pixel_std: likewise.

    Returns:
      `(key, images) -> images` for training, and `(images) -> images` for evaluation, which does
      the same each time: what is drawn by chance is left out, a crop is the one at the centre.
    """
    normalize = functools.partial(augment.normalize, mean=pixel_mean, std=pixel_std)
    random = [_random(transform, train_images, pixel_mean) for transform in transforms]
    fixed = [_fixed(transform) for transform in transforms]

    def for_training(key: jax.Array, images: Array) -> Array:
        for i, function in enumerate(random):
            images = function(jax.random.fold_in(key, i), images)
        return normalize(images)

    def for_evaluation(images: Array) -> Array:
        for function in fixed:
            images = function(images)
        return normalize(images)

    return for_training, for_evaluation


def _random(
    transform: Transform, train_images: np.ndarray, pixel_mean: Sequence[float]
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
            components = augment.color_components(train_images)
            return functools.partial(augment.pca_color, components=components, std=std)
        case Cutout(size):
            fill = [255 * mean for mean in pixel_mean]
            return functools.partial(augment.cutout, size=size, fill=fill)


def _fixed(transform: Transform) -> Callable[[Array], Array]:
    match transform:
        case Resize(size):
            return functools.partial(augment.resize, size=size)
        case RandomCrop(size):
            return functools.partial(augment.center_crop, size=size)
        case _:
            return lambda images: images
