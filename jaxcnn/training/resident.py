"""The feed of a dataset that is stored on the devices as a whole."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.preprocess import Preprocess
from jaxcnn.distributed import mesh
from jaxcnn.training.device_loops import evaluate, train_steps
from jaxcnn.training.feed import EvaluationSplit, evaluation_arguments
from jaxcnn.training.step import Batch, Metrics, TrainState, zero_metrics


class ResidentFeed:
    """Feed of a dataset on the devices: a chunk of steps is one program.

    Args:
      dataset: dataset on the host.
      config: config of the run.
      devices: mesh of all devices.
      preprocess: raw images to the network's input.
      keys: random keys for the order of epochs, the preprocessing of a step, and the step.
      state: training state whose shapes the programs are compiled for.
      probabilities: probability of each training image; an epoch draws as many images as there are,
        with replacement. By default it has each once.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        devices: Mesh,
        preprocess: Preprocess,
        keys: tuple[jax.Array, jax.Array, jax.Array],
        state: TrainState,
        probabilities: Float[np.ndarray, " examples"] | None = None,
    ) -> None:
        self._dataset = dataset
        self._probabilities = probabilities
        self._batch_size = config.batch_size
        self._skip_nonfinite = config.on_nonfinite == "skip"
        self._devices = devices
        self._preprocess = preprocess
        self._order_key, self._keys = keys[0], keys[1:]
        self._state = state
        self._epoch: int | None = None  # the epoch of `_epoch_order`
        self._train_set = mesh.replicate((dataset.train_images, dataset.train_labels), devices)
        self._evaluation_sets = mesh.replicate(dataset.evaluation_images(), devices)
        if config.eval_training:
            self._evaluation_sets["train"] = self._train_set
        self._evaluation_arguments = {
            split: evaluation_arguments(config, preprocess.evaluate, devices, len(labels))
            for split, (_, labels) in self._evaluation_sets.items()
        }
        self._evaluation_programs: dict[str, Callable[..., Any]] = {}

    def first_images(self, epoch: int, count: int) -> UInt8[Array, "count height width channels"]:
        """Return the first raw images of an epoch's order."""
        return self._first_images_program(self._train_set[0], self.order(epoch), count)

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Train from the step of `state` to step `stop` of the same epoch; donates both trees."""
        step = int(jax.device_get(state.step))
        order = self.order(step // (len(self._train_set[1]) // self._batch_size))
        return self.train_program(
            state, metrics, *self._train_set, order, self._scalar(stop), self._keys
        )

    def batch(self, step: int) -> Batch:
        """Return the raw images and the labels of a step."""
        epoch, index = divmod(step, len(self._train_set[1]) // self._batch_size)
        rows = self.order(epoch)[index * self._batch_size :][: self._batch_size]
        images, labels = self._train_set
        return {"image": images[rows], "label": labels[rows]}

    def evaluate(self, state: TrainState, split: EvaluationSplit = "test") -> Metrics:
        """Return metric sums over a split; "train" requires `eval_training`."""
        return self._evaluation_program(split)(state, *self._evaluation_sets[split])

    def compile(self) -> None:
        """Compile the programs that training needs."""
        _ = self.order(0), self.train_program
        for split in self._evaluation_sets:
            self._evaluation_program(split)

    def close(self) -> None:
        """Do nothing, because nothing is read ahead."""

    def order(self, epoch: int) -> Int[Array, " examples"]:
        """Return the rows of the training set for an epoch, a function of (seed, epoch)."""
        if self._epoch != epoch:
            self._epoch = epoch
            self._epoch_order = self._order_program(self._order_key, self._scalar(epoch))
        return self._epoch_order

    @functools.cached_property
    def _first_images_program(self) -> Callable[..., jax.Array]:
        def first(images: jax.Array, order: jax.Array, count: int) -> jax.Array:
            return images[order[:count]]

        return mesh.jit(first, self._devices, static_argnums=2)

    @functools.cached_property
    def _order_program(self) -> Callable[..., jax.Array]:
        num_examples = len(self._dataset.train_labels)

        def shuffle(key: jax.Array, epoch: jax.Array) -> jax.Array:
            key = jax.random.fold_in(key, epoch)
            if self._probabilities is None:
                return jax.random.permutation(key, num_examples)
            p = jnp.asarray(self._probabilities, jnp.float32)
            return jax.random.choice(key, num_examples, (num_examples,), p=p)

        return mesh.jit(shuffle, self._devices)

    @functools.cached_property
    def train_program(self) -> Callable[..., Any]:
        """The compiled program of a chunk of steps; see `device_loops.train_steps`."""
        program = functools.partial(
            train_steps,
            preprocess=self._preprocess.train,
            batch_size=self._batch_size,
            sharding=mesh.batch_sharding(self._devices),
            skip_nonfinite=self._skip_nonfinite,
        )
        out = mesh.shardings(self._state), mesh.replicated(self._devices)
        return mesh.compile_loop(
            mesh.jit(program, self._devices, out, donate_argnums=(0, 1)),
            self._state,
            mesh.replicate(zero_metrics(), self._devices),
            *self._train_set,
            self.order(0),
            self._scalar(0),
            self._keys,
        )

    def _evaluation_program(self, split: str) -> Callable[..., Any]:
        if split not in self._evaluation_programs:
            program = functools.partial(evaluate, **self._evaluation_arguments[split])
            self._evaluation_programs[split] = mesh.compile_for(
                mesh.jit(program, self._devices), self._state, *self._evaluation_sets[split]
            )
        return self._evaluation_programs[split]

    def _scalar(self, value: int) -> Any:
        return mesh.replicate(np.int32(value), self._devices)
