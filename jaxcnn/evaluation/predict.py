"""Answers of a trained network for images of your own."""

from __future__ import annotations

import collections
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Real

from jaxcnn.data.folders import shown
from jaxcnn.data.preprocess import evaluation_preprocess
from jaxcnn.distributed import mesh, processes
from jaxcnn.distributed.compilation_cache import use_compilation_cache
from jaxcnn.errors import UserError, lookup
from jaxcnn.evaluation import inputs, probes
from jaxcnn.evaluation.inputs import Image, Prepare
from jaxcnn.interop.pretrained import load_pretrained
from jaxcnn.interop.trained import Trained, check_views, inference_state, load_run
from jaxcnn.training.step import predict_log_probs

# A batch is padded to the next of these, so that few programs are compiled.
BATCH_SIZES = (1, 8, 64, 256)

STREAM_BATCH = 64


class Predictions(NamedTuple):
    """Answers for a batch of images.

    Attributes:
      log_probs: log-probabilities of the classes, averaged over the views; one row for each image.
      names: name of the most probable class of each image.
    """

    log_probs: Float[np.ndarray, "images classes"]
    names: list[str]


class Answer(NamedTuple):
    """The answer for a file: log-probabilities, or an error.

    Attributes:
      path: path of the file.
      log_probs: log-probabilities of the classes; None for a bad file.
      image: the raw image that the network's preprocessing received; None for a bad file.
      error: description of the fault of a bad file, else None.
    """

    path: str
    log_probs: Float[np.ndarray, " classes"] | None = None
    image: np.ndarray | None = None
    error: UserError | None = None


def load(
    run: str | os.PathLike[str] | None = None,
    *,
    pretrained: str | None = None,
    step: int | Literal["best"] | None = None,
    views: Literal[1, 2, 5, 10] | None = None,
    max_value: float | None = None,
    data_dir: str | None = None,
) -> Classifier:
    """Load the network of a run, or one that the package ships, for predictions.

    Args:
      run: folder of a run.
      pretrained: name of pretrained weights, instead of a run; an unknown name lists all.
      step: step of the run's checkpoint, or "best" for the best test accuracy; by default the
        latest.
      views: views of each image; by default as in the run.
      max_value: largest value of pixels of more than 8 bits in files; by default as in the run,
        else as each file says.
      data_dir: directory of prepared datasets, for runs of earlier versions.

    Raises:
      UserError: there is no such run, checkpoint or name, or the views cannot be cut.
      RunError: the checkpoint is corrupt.
    """
    if (run is None) == (pretrained is None):
        raise UserError("expected either a run or the name of pretrained weights")
    processes.check_devices()
    if pretrained is not None:
        trained = load_pretrained(pretrained)
    else:
        assert run is not None
        trained = load_run(run, step=step, data_dir=data_dir)
    return Classifier(trained, views=views, max_value=max_value)


class Classifier:
    """A trained network that answers for images of any size.

    Attributes:
      trained: the network, its parameters and its config.
      class_names: names of the classes, in the order of the log-probabilities.
      state: the parameters as a training state without an optimizer, for `probes`.
      preprocess: `(raw images, views=1) -> images` as the network receives them.
      views: views of an image.
      max_value: largest value of pixels of more than 8 bits in files; None is as the file says.
    """

    def __init__(
        self,
        trained: Trained,
        *,
        views: Literal[1, 2, 5, 10] | None = None,
        max_value: float | None = None,
    ) -> None:
        """Place the parameters on the devices; programs are compiled at their first use.

        Args:
          trained: the network.
          views: views of each image; by default as in its config.
          max_value: largest value of pixels of more than 8 bits; by default as in its config.

        Raises:
          UserError: the views cannot be cut, or the largest value is not positive.
        """
        config = trained.config
        if config.compilation_cache:
            use_compilation_cache()
        self.trained = trained
        self.class_names = trained.info.class_names
        self.views = views or config.eval_views
        self.max_value = config.max_value if max_value is None else max_value
        if self.max_value is not None and not 0 < self.max_value < math.inf:
            raise UserError(f"`max_value` is {max_value}; expected a positive number")
        self.preprocess = evaluation_preprocess(
            config.transforms, config.pixel_mean, config.pixel_std
        )
        self._mesh = mesh.device_mesh()
        self.state = inference_state(trained, mesh.replicate(trained.params, self._mesh))
        check_views(trained, self.views)

    def predict(self, images: Image | Sequence[Image], *, prepare: Prepare = "auto") -> Predictions:
        """Return the answers for images; a program is compiled once for each of BATCH_SIZES.

        Args:
          images: one image or several: paths, or arrays [height, width] or [height, width,
            channels], or one array [images, height, width(, channels)]. An array of three
            dimensions is one image if its last size is 1, 3 or 4. Values are uint8 in 0..255 or
            floating point in [0, 1].
          prepare: "digit" finds the digit in each image and brings it into MNIST's form; "none"
            scales the image and crops its central square; "auto" is "digit" for networks trained
            on MNIST, except for arrays of the network's own size.

        Raises:
          UserError: an image cannot be read, or an array has another shape, type or range.
        """
        raw = self._raw(images, prepare)
        log_probs = self.log_probs(raw)
        return Predictions(log_probs, [self.class_names[i] for i in log_probs.argmax(-1)])

    def features(
        self, images: Image | Sequence[Image], *, layer: str, prepare: Prepare = "auto"
    ) -> Float[np.ndarray, "images ..."]:
        """Return the outputs of a layer before its nonlinearity, in one view of each image.

        Args:
          images: as for `predict`.
          layer: name of a layer, such as "F6"; an unknown name lists all.
          prepare: as for `predict`.

        Raises:
          UserError: there is no such layer, or an image is bad.
        """
        raw = self._raw(images, prepare)
        shapes = jax.eval_shape(self._outputs, self.state.params, raw[:1])
        lookup("layer", layer, shapes)
        return self._in_batches(functools.partial(self._features_program, layer), raw)

    def log_probs(
        self, images: Real[np.ndarray, "images height width channels"]
    ) -> Float[np.ndarray, "images classes"]:
        """Return log-probabilities of raw images of the dataset's size, averaged over the views."""
        return self._in_batches(self._log_probs_program, images)

    def log_probs_of_one_view(
        self, images: Real[np.ndarray, "images height width channels"]
    ) -> Float[np.ndarray, "images classes"]:
        """Return log-probabilities of raw images in the central view alone."""
        return self._in_batches(self._one_view_program, images)

    def probabilities_of_preprocessed(
        self, images: Float[np.ndarray, "images height width channels"]
    ) -> Float[np.ndarray, "images classes"]:
        """Return the probabilities of images as `preprocess` returns them, in one view each."""
        return np.exp(self._in_batches(self._preprocessed_program, images))

    def stream(
        self, paths: Iterable[str | Answer], *, prepare: Prepare = "auto"
    ) -> Iterator[Answer]:
        """Yield an answer for each file, in order; memory does not grow with their number.

        Args:
          paths: paths of image files; an answer, which has an error, is yielded in its place.
          prepare: as for `predict`.
        """

        def read(path: str | Answer) -> Answer:
            if isinstance(path, Answer):
                return path
            try:
                return Answer(path, image=self._raw(path, prepare)[0])
            except UserError as error:
                return Answer(path, error=error)

        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without the lock
            read_ahead = _map_ahead(pool, read, paths, 2 * STREAM_BATCH)
            while batch := list(itertools.islice(read_ahead, STREAM_BATCH)):
                images = [answer.image for answer in batch if answer.image is not None]
                rows = iter(self.log_probs(np.stack(images)) if images else ())
                for answer in batch:
                    yield answer if answer.error else _answered(answer, next(rows))

    def _raw(self, images: Image | Sequence[Image], prepare: Prepare) -> np.ndarray:
        digits = self.trained.config.dataset in inputs.DIGITS
        shape = self.trained.info.image_shape
        return inputs.raw_images(
            images, shape, prepare=prepare, digits=digits, max_value=self.max_value
        )

    def _in_batches(self, program: Callable[..., jax.Array], images: np.ndarray) -> np.ndarray:
        """Call a program on batches, each padded by its last image to one of BATCH_SIZES."""
        views = self.views if program is self._log_probs_program else 1
        largest = max(1, self.trained.config.eval_batch_size // views)
        sizes = [size for size in BATCH_SIZES if size <= largest]
        parts = []
        for first in range(0, len(images), sizes[-1]):
            batch = images[first : first + sizes[-1]]
            size = next(size for size in sizes if size >= len(batch))
            rows = np.minimum(np.arange(mesh.round_up(size, self._mesh)), len(batch) - 1)
            placed = mesh.replicate(np.ascontiguousarray(batch[rows]), self._mesh)
            parts.append(np.asarray(program(self.state.params, placed))[: len(batch)])
        return np.concatenate(parts)

    @functools.cached_property
    def _log_probs_program(self) -> Callable[..., jax.Array]:
        return mesh.jit(functools.partial(self._log_probs, views=self.views), self._mesh)

    @functools.cached_property
    def _one_view_program(self) -> Callable[..., jax.Array]:
        return mesh.jit(functools.partial(self._log_probs, views=1), self._mesh)

    @functools.cached_property
    def _preprocessed_program(self) -> Callable[..., jax.Array]:
        program = functools.partial(self._log_probs, views=1, preprocess=False)
        return mesh.jit(program, self._mesh)

    def _log_probs(
        self, params: Any, images: Array, *, views: int, preprocess: bool = True
    ) -> jax.Array:
        state, sharding = self.state.replace(params=params), mesh.batch_sharding(self._mesh)
        images = self.preprocess(images, views=views) if preprocess else images
        return predict_log_probs(state, images, views, sharding=sharding)

    def _features_program(self, layer: str, params: Any, images: Array) -> jax.Array:
        return self._outputs_program(params, images)[layer]

    @functools.cached_property
    def _outputs_program(self) -> Callable[..., dict[str, jax.Array]]:
        return mesh.jit(self._outputs, self._mesh)

    def _outputs(self, params: Any, images: Array) -> dict[str, jax.Array]:
        return probes.layer_outputs(self.state.replace(params=params), self.preprocess(images))


def _answered(answer: Answer, log_probs: np.ndarray) -> Answer:
    if np.isnan(log_probs).any():
        error = UserError(f"the output of the network for {shown(answer.path)} is not a number")
        return Answer(answer.path, error=error)
    return answer._replace(log_probs=log_probs)


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Any], Answer], items: Iterable[Any], ahead: int
) -> Iterator[Answer]:
    """Map a function over items in order, with at most `ahead` results waiting."""
    futures: collections.deque[Any] = collections.deque()
    for item in items:
        futures.append(pool.submit(function, item))
        if len(futures) > ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()
