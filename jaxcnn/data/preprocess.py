"""Preprocessing on the device: from raw images, through transforms, to the network's input."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxcnn.data import augment, geometry
from jaxcnn.data.transforms import (
    Affine,
    CenterCrop,
    Cutout,
    Deslant,
    HorizontalFlip,
    Invert,
    PCAColor,
    RandomCrop,
    Resize,
    Transform,
)


class ViewsError(ValueError):
    """The views of an image cannot be cut, because no transform is a crop of a part of it."""

    def __init__(self, views: int) -> None:
        super().__init__(
            f"{views} views are parts of an image, but no transform of the run is a crop smaller "
            "than the images; use 1 view, or 2, which adds the mirror image"
        )


class Preprocess(NamedTuple):
    """Functions from raw images to the network's input.

    Attributes:
      train: `(key, images) -> images`, with random draws.
      evaluate: `(images, views=1) -> images`, deterministic; an image's views are consecutive.
    """

    train: Callable[[jax.Array, Array], Array]
    evaluate: Callable[..., Array]


def make_preprocess(
    transforms: Sequence[Transform],
    sample: Callable[[], UInt8[np.ndarray, "examples height width channels"]],
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> Preprocess:
    """Compose the transforms and `augment.normalize`, for batches of raw images.

    In evaluation, random transforms are left out and a crop is the central one. With 2 views, an
    image is followed by its mirror image; with 5 or 10, its views are those of `geometry.views`.
    The function for evaluation raises ViewsError if the views cannot be cut.

    Args:
      transforms: transforms, in the order of their application.
      sample: function that returns training images, for the colour components of `PCAColor`.
      pixel_mean: mean that `augment.normalize` subtracts.
      pixel_std: standard deviation that `augment.normalize` divides by.
    """
    normalize = functools.partial(augment.normalize, mean=pixel_mean, std=pixel_std)
    random = [_random(transform, sample, pixel_mean) for transform in transforms]

    def for_training(key: jax.Array, images: Array) -> Array:
        for i, function in enumerate(random):
            images = function(jax.random.fold_in(key, i), images)
        return normalize(images)

    evaluate = evaluation_preprocess(transforms, pixel_mean, pixel_std)
    return Preprocess(for_training, evaluate)


def evaluation_preprocess(
    transforms: Sequence[Transform], pixel_mean: Sequence[float], pixel_std: Sequence[float]
) -> Callable[..., Array]:
    """Return the `evaluate` of a `Preprocess`; it needs no training images."""
    normalize = functools.partial(augment.normalize, mean=pixel_mean, std=pixel_std)

    def for_evaluation(images: Array, views: int = 1) -> Array:
        num_views = views * images.shape[0]  # `len` refuses the symbolic size of an export
        for transform in transforms:
            images = _fixed(transform, images, views)
        if views == 2:
            images = jnp.stack([images, images[:, :, ::-1]], axis=1)
            images = images.reshape(-1, *images.shape[2:])
        if images.shape[0] != num_views:
            raise ViewsError(views)
        return normalize(images)

    return for_evaluation


def _random(
    transform: Transform, sample: Callable[[], np.ndarray], pixel_mean: Sequence[float]
) -> Callable[[jax.Array, Array], Array]:
    match transform:
        case RandomCrop(size, padding):
            return functools.partial(augment.random_crop, size=size, padding=padding)
        case HorizontalFlip():
            return augment.horizontal_flip
        case Affine():
            return functools.partial(augment.affine, **dataclasses.asdict(transform))
        case Invert(p):
            return functools.partial(augment.invert, p=p)
        case PCAColor(std):
            components = augment.color_components(sample())
            return functools.partial(augment.pca_color, components=components, std=std)
        case Cutout(size):
            fill = [255 * mean for mean in pixel_mean]
            return functools.partial(augment.cutout, size=size, fill=fill)
        case Resize() | CenterCrop() | Deslant():
            return lambda _, images: _fixed(transform, images, views=1)


def _fixed(transform: Transform, images: Array, views: int) -> Array:
    match transform:
        case Resize(size):
            return geometry.resize(images, size=size)
        case CenterCrop(size):
            return geometry.center_crop_or_pad(images, size=size)
        case Deslant():
            return geometry.deslant(images)
        case RandomCrop(size) if views in (5, 10) and images.shape[1:3] != (size, size):
            cut = geometry.views(images, size=size, flips=views == 10)
            return cut.reshape(-1, *cut.shape[2:])
        case RandomCrop(size):
            return geometry.center_crop(images, size=size)
        case _:
            return images
