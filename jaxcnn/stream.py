"""Sets larger than the device, through Grain: images are decoded as the steps need them.

The order of an epoch is a function of (seed, epoch), and any of its batches can be read alone:
going on in mid-epoch needs no saved iterator.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import grain
import jax
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt8

from jaxcnn import mesh, sources
from jaxcnn.config import TrainConfig
from jaxcnn.decode import Images
from jaxcnn.evaluate import evaluate_stored, predict
from jaxcnn.resident import Predictions, Transforms, evaluation
from jaxcnn.step import Batch, Metrics, TrainState, train_stored, zero_metrics


@dataclasses.dataclass(frozen=True)
class StreamedDataset:
    """What `datasets.Dataset` is for a set in memory; labels come with the images.

    Attributes:
      train_images: what to learn from.
      test_images: what no training step may see.
      class_names: what each label means.
    """

    train_images: Images
    test_images: Images
    class_names: tuple[str, ...]

    def sample(self) -> UInt8[np.ndarray, "examples height width channels"]:
        """A thousand of the training images, the same ones in each run; all if they are fewer."""
        return first_images(self.train_images, seed=0, epoch=0, count=1000)


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    size: int,
    min_size: int,
    on_bad_image: Literal["refuse", "skip"],
) -> StreamedDataset:
    """Opens a set; where bad images are refused, looks at the headers of a folder's files.

    Args:
      name: see `sources.open_source`.
      data_dir: likewise.
      size: see `Images`.
      min_size: likewise.
      on_bad_image: likewise.

    Raises:
      UserError: nothing of that name is there, it is not laid out as it should be, or such a header
        tells of a bad image.
    """
    source = sources.open_source(name, data_dir)
    if on_bad_image == "refuse":
        sources.check_headers(source, min_size)
    train, test = (
        Images(
            examples,
            size=size,
            channels=source.channels,
            min_size=min_size,
            on_bad_image=on_bad_image,
        )
        for examples in (source.train, source.test)
    )
    return StreamedDataset(train, test, source.class_names)


def first_images(
    images: Images, *, seed: int, epoch: int, count: int
) -> UInt8[np.ndarray, "count height width channels"]:
    """Images of the first `count` rows of an epoch's order, or of all if there are fewer."""
    rows = _order(images, seed, epoch)[:count]
    return next(iter(_decoded(rows.map(images.training_example), count)))["image"]


def training_batches(
    images: Images,
    *,
    seed: int,
    epoch: int,
    first: int,
    batch_size: int,
    share: slice = slice(None),
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """The whole batches of an epoch from one on: each a function of (seed, epoch) and its index.

    Args:
      images: the training set.
      seed: of the run.
      epoch: counted from 0.
      first: index of the batch to begin with.
      batch_size: of all processes together.
      share: the part of each batch that this process reads.
    """
    num_batches = len(images) // batch_size
    places = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[first:, share]
    order = _order(images, seed, epoch)
    examples = grain.MapDataset.source(places.ravel()).map(
        lambda place: images.training_example(order[place])
    )
    return _decoded(examples, places.shape[1])


def evaluation_batches(
    images: Images, *, batch_size: int, share: slice = slice(None)
) -> grain.IterDataset[dict[str, np.ndarray]]:
    """Batches in which each image is once, in order; the last one is filled up, and masked.

    Args:
      images: the test set.
      batch_size: of all processes together.
      share: the part of each batch that this process reads.
    """
    num_batches = -(-len(images) // batch_size)
    rows = np.arange(num_batches * batch_size).reshape(num_batches, batch_size)[:, share]
    examples = grain.MapDataset.source(rows.ravel()).map(images.evaluation_example)
    return _decoded(examples, rows.shape[1])


def subset(images: Images, rows: Int[np.ndarray, " count"]) -> Sequence[np.ndarray]:
    """These images, still decoded only when asked for."""
    return grain.MapDataset.source(rows).map(images.__getitem__)


def _order(images: Images, seed: int, epoch: int) -> grain.MapDataset[int]:
    # Grain itself adds the epoch to the seed: epoch 1 of seed 0 would be epoch 0 of seed 1.
    (shuffle_seed,) = np.random.SeedSequence((seed, epoch)).generate_state(1)
    return grain.MapDataset.range(len(images)).shuffle(seed=int(shuffle_seed))


def _decoded(examples: grain.MapDataset, batch_size: int) -> grain.IterDataset:
    # Threads and not processes: Pillow decodes without holding Python's lock.
    options = grain.ReadOptions(num_threads=os.cpu_count() or 1)
    return examples.to_iter_dataset(options).batch(batch_size)


class Streamed:
    """A set that is decoded as the steps need it: a step is one program; see `Resident`."""

    def __init__(
        self,
        dataset: StreamedDataset,
        config: TrainConfig,
        devices: Mesh,
        transforms: Transforms,
        keys: tuple[jax.Array, jax.Array, jax.Array],
        state: TrainState,
    ) -> None:
        self._dataset = dataset
        self._seed = config.seed
        self._batch_size = config.batch_size
        self._steps_per_epoch = len(dataset.train_images) // config.batch_size
        self._evaluation = evaluation(config, transforms[1], devices, len(dataset.test_images))
        self._eval_batch_size = self._evaluation["batch_size"]
        self._devices = devices
        self._transforms = transforms
        self._keys = keys[1:]
        self._state = state
        self._next_step: int | None = None  # the one that `_batches` is at
        self._batches: grain.DatasetIterator[Batch] | None = None

    def first_images(self, epoch: int, count: int) -> UInt8[Array, "count height width channels"]:
        """The first images of an epoch's order, as stored."""
        images: Any = first_images(
            self._dataset.train_images, seed=self._seed, epoch=epoch, count=count
        )
        return mesh.replicate(images, self._devices)

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Steps from that of `state` to `stop`, in one epoch; takes `state` and `metrics`."""
        for step in range(int(state.step), stop):
            batch = self._batch(step)
            state, metrics = self._train_program(state, metrics, batch, self._keys)
        return state, metrics

    def evaluate(self, state: TrainState) -> Metrics:
        """Sums over the whole test set, but for images that are skipped."""
        metrics = mesh.replicate(zero_metrics(), self._devices)
        for batch in self._test_batches():
            metrics = self._evaluate_program(state, metrics, batch)
        return metrics

    def predict(self, state: TrainState) -> Predictions:
        """Log-probabilities of the whole test set, but for images that are skipped."""

        def answers(state: TrainState, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
            by_class = predict(state, batch["image"], **self._evaluation)
            return by_class, batch["label"], batch["mask"]

        program = mesh.jit(answers, self._devices)
        parts = [jax.device_get(program(state, batch)) for batch in self._test_batches()]
        by_class, labels, mask = map(np.concatenate, zip(*parts, strict=True))
        images = subset(self._dataset.test_images, np.flatnonzero(mask))
        return Predictions(images, labels[mask], by_class[mask])

    def compile(self) -> None:
        """Compiles what training needs, now."""
        _ = self._train_program, self._evaluate_program

    def close(self) -> None:
        """Stops reading ahead; training can go on all the same."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _batch(self, step: int) -> Batch:
        """The batch of a step; the next ones are on their way."""
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
            )
            self._batches = self._placed(batches)
        self._next_step = step + 1
        return next(self._batches)

    def _test_batches(self) -> grain.DatasetIterator[Batch]:
        batches = evaluation_batches(
            self._dataset.test_images,
            batch_size=self._eval_batch_size,
            share=mesh.process_share(self._eval_batch_size),
        )
        return self._placed(batches)

    def _placed(self, batches: grain.IterDataset) -> grain.DatasetIterator[Batch]:
        """The batches on the devices, where two of them lie ready ahead."""
        placed = batches.map(functools.partial(mesh.place_shares, mesh=self._devices))
        return iter(ThreadPrefetchIterDataset(placed, prefetch_buffer_size=2))

    @functools.cached_property
    def _train_program(self) -> Callable[..., Any]:
        program = functools.partial(
            train_stored,
            transform=self._transforms[0],
            sharding=mesh.batch_sharding(self._devices),
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

    @functools.cached_property
    def _evaluate_program(self) -> Callable[..., Any]:
        program = functools.partial(
            evaluate_stored,
            transform=self._evaluation["transform"],
            sharding=self._evaluation["sharding"],
        )
        metrics = mesh.replicate(zero_metrics(), self._devices)
        batch = self._batch_like(self._eval_batch_size)
        batch["mask"] = jax.ShapeDtypeStruct(
            batch["label"].shape, bool, sharding=batch["label"].sharding
        )
        return mesh.compile_for(mesh.jit(program, self._devices), self._state, metrics, batch)

    def _batch_like(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        like = functools.partial(jax.ShapeDtypeStruct, sharding=mesh.batch_sharding(self._devices))
        image_shape = self._dataset.train_images.shape[1:]
        return {
            "image": like((batch_size, *image_shape), np.uint8),
            "label": like((batch_size,), np.int32),
        }
