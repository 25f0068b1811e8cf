"""A config come to life: its data, a fresh state and compiled programs, on the devices."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Float, UInt8

from jaxcnn import datasets, memory, mesh, sources
from jaxcnn.cache import cache_dir
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError, lookup
from jaxcnn.evaluate import mean_metrics, predict
from jaxcnn.models import MODELS
from jaxcnn.optimizers import gauss_newton_diagonal, make_optimizer, make_schedule
from jaxcnn.pipeline import compose
from jaxcnn.resident import Predictions, Resident, evaluation
from jaxcnn.step import Metrics, TrainState, create_state, zero_metrics

CURVATURE_EXAMPLES = 500  # for `diagonal-lm`: LeCun et al. 1998, section III.B


class Experiment:
    """A config come to life; its programs are compiled once, at their first use.

    Attributes:
      config: what it was made from.
      dataset: on the host.
      mesh: all devices.
      state: at step 0, on every device.
      steps_per_epoch: of whole batches.
      total_steps: of the whole run.
      schedule: the learning rate as a function of the step.
      to_input: stored images to what the model takes in evaluation, as `pipeline.compose` says.
    """

    def __init__(self, config: TrainConfig) -> None:
        """Loads the data, makes the state and places both.

        Raises:
          UserError: an unknown name, data that cannot be had, or fields that do not fit the data.
        """
        if config.compilation_cache:
            _use_compilation_cache()
        check_names(config)  # before the data: a wrong name is said at once
        dataset, feed = _open(config)
        num_examples = len(dataset.train_images)
        if config.batch_size > num_examples:
            raise UserError(
                f"--batch-size {config.batch_size} is larger than the training set of "
                f"{config.dataset}, {num_examples:,} images"
            )
        self.config = config
        self.dataset = dataset
        self.mesh = mesh.device_mesh(config.model_axis)
        self.steps_per_epoch = num_examples // config.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        if config.optimizer.accumulate > self.total_steps:
            raise UserError(
                f"--optimizer.accumulate is {config.optimizer.accumulate}: the run has only "
                f"{self.total_steps:,} batches, and would never update"
            )
        warmup_epochs = config.optimizer.warmup_epochs
        if round(warmup_epochs * self.steps_per_epoch) >= self.total_steps:
            raise UserError(
                f"--optimizer.warmup-epochs is {warmup_epochs}: it takes all of the run's "
                f"{self.total_steps:,} batches"
            )

        self.schedule = make_schedule(
            config.optimizer, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
        )
        transforms = for_training, self.to_input = compose(
            config.transforms, dataset.sample, config.pixel_mean, config.pixel_std
        )
        with jax.transfer_guard("allow"):  # the seed has to reach the device
            keys = tuple(jax.random.split(jax.random.key(config.seed), 5))
        init_key, order_key, step_key, image_key, self._curvature_key = mesh.replicate(
            keys, self.mesh
        )
        model = _make_model(config, len(dataset.class_names))
        try:
            stored = jax.ShapeDtypeStruct((1, *dataset.train_images.shape[1:]), np.uint8)
            jax.eval_shape(for_training, image_key, stored)
            to_views = functools.partial(self.to_input, views=config.eval_views)
            image_shape = jax.eval_shape(to_views, stored).shape[1:]
            create = self._state_constructor(model, image_shape)
            state_like = jax.eval_shape(create, init_key)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"model {config.model} and dataset {config.dataset} do not fit: {error}"
            ) from error
        layers = ", ".join(state_like.params)
        for layer, _ in config.optimizer.layer_decays:
            if layer not in state_like.params:
                raise UserError(f"--optimizer.layer-decays names {layer}: there are {layers}")
        # Random numbers compile slowly and are drawn once: on a CPU, LLVM's optimizations cost
        # eight times what the rest of this program does.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        sharding = mesh.state_sharding(state_like, self.mesh)
        self.state = mesh.jit(create, self.mesh, sharding, compiler_options=options)(init_key)
        keys = order_key, image_key, step_key
        self._feed = feed(dataset, config, self.mesh, transforms, keys, self.state)

    def begin_epoch(self, state: TrainState) -> TrainState:
        """What is due before the first step of an epoch: for `diagonal-lm`, the curvature."""
        memory.trim()
        if self.config.optimizer.name == "diagonal-lm":
            # The first of the epoch's order: a random choice that is a new one in each epoch.
            epoch = int(state.step) // self.steps_per_epoch
            images = self._feed.first_images(epoch, CURVATURE_EXAMPLES)
            state = self._curvature_program(state, images, self._curvature_key)
        return state

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Steps from that of `state` to `stop`, in one epoch; takes `state` and `metrics`."""
        return self._feed.train(state, metrics, stop)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        with jax.transfer_guard("allow"):  # optax's constants have to reach the device
            return float(self.schedule(step))

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Mean `loss` and `accuracy` over the whole test set, and `num_examples` it counted."""
        metrics = self._feed.evaluate(state)
        return {**mean_metrics(metrics), "num_examples": int(metrics["count"])}

    def predict(self, state: TrainState) -> Predictions:
        """Log-probabilities of the whole test set, in the config's views."""
        return self._feed.predict(state)

    def predict_one_view(
        self, state: TrainState, images: UInt8[np.ndarray, "examples height width channels"]
    ) -> Float[np.ndarray, "examples classes"]:
        """Log-probabilities of other stored images, of which only the centre is seen."""
        placed: Any = mesh.replicate(images, self.mesh)
        return np.asarray(self._predict_program(state, placed))

    def compile(self) -> float:
        """Compiles what training needs, now; returns the seconds it took.

        Raises:
          UserError: the batch does not divide over the devices.
        """
        mesh.check_batch_size(self.config.batch_size, self.mesh)
        started = time.perf_counter()
        self._feed.compile()
        if self.config.optimizer.name == "diagonal-lm":
            _ = self._curvature_program
        memory.trim()
        return time.perf_counter() - started

    def close(self) -> None:
        """Stops reading images ahead; training can go on all the same."""
        self._feed.close()

    def no_metrics(self) -> Metrics:
        """Sums to begin with, on every device."""
        return mesh.replicate(zero_metrics(), self.mesh)

    def _state_constructor(
        self, model: nn.Module, image_shape: tuple[int, ...]
    ) -> Callable[[jax.Array], TrainState]:
        tx = make_optimizer(self.config.optimizer, self.schedule, ema_decay=self.config.ema_decay)
        smoothing = self.config.label_smoothing
        return functools.partial(create_state, model, tx, image_shape, label_smoothing=smoothing)

    @functools.cached_property
    def _curvature_program(self) -> Callable[..., TrainState]:
        def estimate(state: TrainState, images: jax.Array, key: jax.Array) -> TrainState:
            def draw(params: Any, image: jax.Array) -> jax.Array:
                return state.apply_fn({"params": params}, image, method="draw")

            key = jax.random.fold_in(key, state.step)
            curvature = gauss_newton_diagonal(draw, state.params, self.to_input(images), key)
            opt_state = optax.tree_utils.tree_set(state.opt_state, curvature=curvature)
            return state.replace(opt_state=opt_state)

        images = self._feed.first_images(0, CURVATURE_EXAMPLES)
        program = mesh.jit(estimate, self.mesh, mesh.shardings(self.state), donate_argnums=0)
        return mesh.compile_for(program, self.state, images, self._curvature_key)

    @functools.cached_property
    def _predict_program(self) -> Callable[[TrainState, jax.Array], jax.Array]:
        num_images = len(self.dataset.test_images)
        options = evaluation(self.config, self.to_input, self.mesh, num_images, views=1)
        return mesh.jit(functools.partial(predict, **options), self.mesh)


def check_names(config: TrainConfig) -> None:
    """Looks the model and the dataset up.

    Raises:
      UserError: there is none of that name.
    """
    lookup("model", config.model, MODELS)
    if not config.dataset.startswith(sources.PREFIXES):
        others = ("folder:DIR", "tfds:NAME")
        lookup("dataset", config.dataset, datasets.DATASETS, others=others)


def _open(config: TrainConfig) -> tuple[Any, Callable[..., Any]]:
    """The config's dataset, and the way in which its images come to the steps."""
    if not config.dataset.startswith(sources.PREFIXES):
        dataset = datasets.load(
            config.dataset, data_dir=config.data_dir, manual_dir=config.manual_dir
        )
        return dataset, Resident
    from jaxcnn import stream  # late, because importing Grain takes most of a second

    streamed = stream.load(
        config.dataset,
        data_dir=config.data_dir,
        size=config.stream_size,
        min_size=config.stream_min_size,
        on_bad_image=config.on_bad_image,
    )
    return streamed, stream.Streamed


def _make_model(config: TrainConfig, num_classes: int) -> nn.Module:
    """The config's network, if it can be trained as the config says."""
    model = lookup("model", config.model, MODELS)(num_classes=num_classes)
    if config.dtype != "float32":
        if not hasattr(model, "dtype"):
            raise UserError(f"--dtype is {config.dtype}, and {config.model} has float32 only")
        model = model.clone(dtype=jnp.dtype(config.dtype))
    if config.label_smoothing and hasattr(model, "loss_fn"):
        raise UserError(
            f"--label-smoothing is of cross-entropy, and {config.model} has a loss of its own"
        )
    if config.optimizer.name == "diagonal-lm" and not hasattr(model, "draw"):
        raise UserError(
            "--optimizer.name diagonal-lm needs a network that draws a target, as lenet5-1998 "
            f"does; {config.model} does not"
        )
    return model


def _use_compilation_cache() -> None:
    """Keeps compiled programs, unless the user's own settings of JAX already name a place."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    with contextlib.suppress(OSError):  # a read-only home: compile each time
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
