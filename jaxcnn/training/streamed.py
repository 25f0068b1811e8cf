"""The feed of a dataset whose images are decoded as the steps need them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from jaxcnn.config import TrainConfig
from jaxcnn.data.preprocess import Preprocess
from jaxcnn.data.stream import (
    StreamedDataset,
    evaluation_batches,
    first_images,
    training_batches,
)
from jaxcnn.distributed import mesh
from jaxcnn.training.feed import EvaluationSplit, evaluation_arguments
from jaxcnn.training.step import (
    Batch,
    Metrics,
    TrainState,
    raw_eval_step,
    raw_train_step,
    zero_metrics,
)


class StreamedFeed:
    """Feed of a streamed dataset: a step is one program; see `ResidentFeed` for the arguments."""

    def __init__(
        self,
        dataset: StreamedDataset,
        config: TrainConfig,
        devices: Mesh,
        preprocess: Preprocess,
        keys: tuple[jax.Array, jax.Array, jax.Array],
        state: TrainState,
        probabilities: Float[np.ndarray, " examples"] | None = None,
    ) -> None:
        self._dataset = dataset
        self._probabilities = probabilities
        self._seed = config.seed
        self._batch_size = config.batch_size
        self._skip_nonfinite = config.on_nonfinite == "skip"
        self._steps_per_epoch = len(dataset.train_images) // config.batch_size
        self._evaluation_images = dataset.evaluation_images()
        if config.eval_training:
            self._evaluation_images["train"] = dataset.train_images
        self._evaluation_arguments = {
            split: evaluation_arguments(config, preprocess.evaluate, devices, len(images))
            for split, images in self._evaluation_images.items()
        }
        self._evaluation_programs: dict[str, Callable[..., Any]] = {}
        self._devices = devices
        self._preprocess = preprocess
        self._keys = keys[1:]
        self._state = state
        self._next_step: int | None = None  # the step of the next batch in `_batches`
        self._batches: grain.DatasetIterator[Batch] | None = None

    def first_images(self, epoch: int, count: int) -> UInt8[Array, "count height width channels"]:
        """Return the first raw images of an epoch's order, or all if there are fewer."""
        images: Any = first_images(
            self._dataset.train_images,
            seed=self._seed,
            epoch=epoch,
            count=count,
            probabilities=self._probabilities,
        )
        return mesh.replicate(images, self._devices)

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Train from the step of `state` to step `stop` of the same epoch; donates both trees."""
        for step in range(int(jax.device_get(state.step)), stop):
            batch = self.batch(step)
            state, metrics = self.train_program(state, metrics, batch, self._keys)
        return state, metrics

    def evaluate(self, state: TrainState, split: EvaluationSplit = "test") -> Metrics:
        """Return metric sums over the images of a split that are not skipped."""
        program = self._evaluation_program(split)
        metrics = mesh.replicate(zero_metrics(), self._devices)
        for batch in self._evaluation_batches(split):
            metrics = program(state, metrics, batch)
        return metrics

    def compile(self) -> None:
        """Compile what training needs."""
        _ = self.train_program
        for split in self._evaluation_images:
            self._evaluation_program(split)

    def close(self) -> None:
        """Stop reading ahead; training can continue."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def batch(self, step: int) -> Batch:
        """Return the raw images and the labels of a step; the next batches are read ahead."""
        epoch, index = divmod(step, self._steps_per_epoch)
        if self._batches is None or step != self._next_step or index == 0:
            self.close()
            batches = training_batches(
                self._dataset.train_images,
                seed=self._seed,
                epoch=epoch,
                first=index,
                batch_size=self._batch_size,
                share=mesh.process_share(self._batch_size),
                probabilities=self._probabilities,
            )
            self._batches = self._placed(batches)
        self._next_step = step + 1
        return next(self._batches)

    def _evaluation_batches(self, split: str) -> grain.DatasetIterator[Batch]:
        batch_size = self._evaluation_arguments[split]["batch_size"]
        batches = evaluation_batches(
            self._evaluation_images[split],
            batch_size=batch_size,
            share=mesh.process_share(batch_size),
        )
        return self._placed(batches)

    def _placed(self, batches: grain.IterDataset) -> grain.DatasetIterator[Batch]:
        """Return the batches on the devices, two of them read ahead."""
        placed = batches.map(functools.partial(mesh.place_shares, mesh=self._devices))
        return iter(ThreadPrefetchIterDataset(placed, prefetch_buffer_size=2))

    @functools.cached_property
    def train_program(self) -> Callable[..., Any]:
        """The compiled program of a step; see `step.raw_train_step`."""
        program = functools.partial(
            raw_train_step,
            preprocess=self._preprocess.train,
            sharding=mesh.batch_sharding(self._devices),
            skip_nonfinite=self._skip_nonfinite,
        )
        metrics = mesh.replicate(zero_metrics(), self._devices)
        out = mesh.shardings(self._state), mesh.replicated(self._devices)
        return mesh.compile_for(
            mesh.jit(program, self._devices, out, donate_argnums=(0, 1)),
            self._state,
            metrics,
            self._batch_like(self._batch_size),
            self._keys,
        )

    def _evaluation_program(self, split: str) -> Callable[..., Any]:
        if split in self._evaluation_programs:
            return self._evaluation_programs[split]
        arguments = dict(self._evaluation_arguments[split])
        batch = self._batch_like(arguments.pop("batch_size"))
        program = functools.partial(raw_eval_step, **arguments)
        metrics = mesh.replicate(zero_metrics(), self._devices)
        batch["mask"] = jax.ShapeDtypeStruct(
            batch["label"].shape, bool, sharding=batch["label"].sharding
        )
        self._evaluation_programs[split] = mesh.compile_for(
            mesh.jit(program, self._devices), self._state, metrics, batch
        )
        return self._evaluation_programs[split]

    def _batch_like(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        like = functools.partial(jax.ShapeDtypeStruct, sharding=mesh.batch_sharding(self._devices))
        image_shape = self._dataset.train_images.shape[1:]
        return {
            "image": like((batch_size, *image_shape), np.uint8),
            "label": like((batch_size,), np.int32),
        }
