"""The interface between the engine and a feed, which passes a dataset to compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

from jax.sharding import Mesh
from jaxtyping import Array, UInt8

from jaxcnn.config import TrainConfig
from jaxcnn.distributed import mesh
from jaxcnn.training.step import Batch, Metrics, TrainState

EvaluationSplit = Literal["train", "validation", "test"]


@runtime_checkable
class Feed(Protocol):
    """The interface of `ResidentFeed` and `StreamedFeed`."""

    def first_images(self, epoch: int, count: int) -> UInt8[Array, "count height width channels"]:
        """Return the first raw images of an epoch's order, or all if there are fewer."""

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Train from the step of `state` to step `stop` of the same epoch; donates both trees."""

    def batch(self, step: int) -> Batch:
        """Return the raw images and the labels of a step."""

    def evaluate(self, state: TrainState, split: EvaluationSplit = "test") -> Metrics:
        """Return metric sums over a split; "train" requires `eval_training`."""

    def compile(self) -> None:
        """Compile the programs that training needs."""

    def close(self) -> None:
        """Stop reading ahead; training can continue."""


def evaluation_arguments(
    config: TrainConfig,
    preprocess: Callable[..., Array],
    devices: Mesh,
    num_images: int,
) -> dict[str, Any]:
    """Build the keyword arguments for `evaluate` and `predict`.

    With several views per image, a step holds proportionally fewer images.

    Args:
      config: config of the run.
      preprocess: `(raw images, views) -> images` for evaluation.
      devices: mesh of all devices.
      num_images: size of the set; no step is larger.
    """
    views = config.eval_views
    num_examples = min(-(-config.eval_batch_size // views), num_images)
    return {
        "preprocess": functools.partial(preprocess, views=views),
        "batch_size": mesh.round_up(num_examples, devices),
        "sharding": mesh.batch_sharding(devices),
    }
