"""Boosting: three networks, each trained on patterns that those before it find hard.

The first network is trained as usual. The second is trained on patterns of which the first answers
half wrong, the third on new patterns on which the first two disagree. Their outputs are added.

References:
  LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998,
  section III.C, for Boosted LeNet-4.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxcnn.config import TrainConfig
from jaxcnn.data import augment
from jaxcnn.data.transforms import Affine
from jaxcnn.errors import UserError
from jaxcnn.evaluation import predict
from jaxcnn.studies.image_measures import dataset_of
from jaxcnn.training.train import train_and_evaluate
from jaxcnn.workdir import folder as workdirs

Images = UInt8[np.ndarray, "examples height width channels"]
CHUNK = 1000  # images that are distorted at a time


def half_wrong(
    correct: Bool[np.ndarray, " patterns"], rng: np.random.Generator
) -> Int[np.ndarray, " chosen"]:
    """Return the rows of as many right as wrong answers, as many as possible, in their order.

    Args:
      correct: whether the first network's answer for each pattern is right.
      rng: source of the rows that are left out, of the kind of which there are more.
    """
    right, wrong = np.flatnonzero(correct), np.flatnonzero(~correct)
    count = min(len(right), len(wrong))
    chosen = [rng.choice(rows, count, replace=False) for rows in (right, wrong)]
    return np.sort(np.concatenate(chosen))


def disagreements(
    first: Int[np.ndarray, " patterns"], second: Int[np.ndarray, " patterns"]
) -> Int[np.ndarray, " chosen"]:
    """Return the rows of the patterns for which two networks have different answers."""
    return np.flatnonzero(first != second)


def distorted(images: Images, transform: Affine, *, seed: int, copies: int = 1) -> Images:
    """Return random distortions of images, `copies` of each: all images, then all again.

    Args:
      images: images.
      transform: distortion.
      seed: seed of the distortions.
      copies: number of distortions of each image.
    """
    fields, key = dataclasses.asdict(transform), jax.random.key(seed)
    distort = jax.jit(lambda key, images: augment.affine(key, images, **fields))
    results = np.empty((copies, *images.shape), np.uint8)  # in place, without a second copy of all
    for copy in range(copies):
        for start in range(0, len(images), CHUNK):
            chunk = images[start : start + CHUNK]
            piece = distort(jax.random.fold_in(key, copy * len(images) + start), chunk)
            results[copy, start : start + CHUNK] = np.clip(np.rint(np.asarray(piece)), 0, 255)
    return results.reshape(-1, *images.shape[1:])


def boost(
    run: Path, *, copies: int = 9
) -> Callable[[Images], Float[np.ndarray, "examples classes"]]:
    """Train two networks that complement that of a finished run; return the sum of all outputs.

    The patterns that are filtered are distortions of the training images, new ones for the third
    network. The second and the third network are trained on those that remain, without further
    distortions, for about as many steps as the first. Their runs are kept in `boosting/second` and
    `boosting/third` in the folder of the first. An interrupted call continues when it is repeated;
    networks that are finished are only loaded.

    Args:
      run: folder of the first network's run, with the `Affine` among its transforms that distorts
        the patterns.
      copies: number of distortions of each training image that are filtered; the paper has 9.

    Returns:
      Function from raw images to the sum of the three networks' probabilities for each class.

    Raises:
      UserError: the run has no `Affine`, a filter leaves no pattern, or as `train_and_evaluate`.
    """
    config = workdirs.read_config(run)
    dataset = dataset_of(config)
    labels = np.tile(dataset.train_labels, copies)

    def trained(
        name: str, number: int, choose: Callable[[Images], np.ndarray]
    ) -> predict.Classifier:
        folder = run / "boosting" / name
        if workdirs.read_result(folder) is None:
            seed = 3 * config.seed + number
            images = distorted(dataset.train_images, _affine(config), seed=seed, copies=copies)
            rows = choose(images)
            if not len(rows):
                raise UserError(
                    f"no pattern is left for the {name} network of {len(images):,}; expected some "
                    "that are hard; raise `copies`, or distort more"
                )
            hard = dataclasses.replace(
                dataset, train_images=images[rows], train_labels=labels[rows]
            )
            epochs = max(1, round(config.epochs * len(dataset.train_images) / len(rows)))
            train_and_evaluate(_filtered(config, epochs, folder), dataset=hard)
        return predict.load(folder)

    def right(images: Images) -> Bool[np.ndarray, " patterns"]:
        return _answers(first, images) == labels

    first, rng = predict.load(run), np.random.default_rng(config.seed)
    second = trained("second", 1, lambda images: half_wrong(right(images), rng))
    third = trained(
        "third",
        2,
        lambda images: disagreements(_answers(first, images), _answers(second, images)),
    )
    return lambda images: sum(np.exp(each.log_probs(images)) for each in (first, second, third))


def _affine(config: TrainConfig) -> Affine:
    for transform in config.transforms:
        if isinstance(transform, Affine):
            return transform
    raise UserError(
        "the transforms of the run have no `affine`; expected one, which distorts the patterns "
        "that the second and the third network are trained on; choose another run"
    )


def _filtered(config: TrainConfig, epochs: int, folder: Path) -> TrainConfig:
    """Return the config of a network that is trained on all of the patterns that it is given."""
    return dataclasses.replace(
        config,
        transforms=tuple(each for each in config.transforms if not isinstance(each, Affine)),
        epochs=epochs,
        continued_from=(),
        eval_every_epochs=epochs,
        train_examples=None,
        val_fraction=0.0,
        patience=None,
        workdir=str(folder),
    )


def _answers(network: predict.Classifier, images: Images) -> Int[np.ndarray, " patterns"]:
    return network.log_probs(images).argmax(-1)
