"""A config come to life: its data, a fresh state and compiled programs, on the devices."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxcnn import datasets, mesh
from jaxcnn.cache import cache_dir
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError, lookup
from jaxcnn.evaluate import evaluate, mean_metrics, predict
from jaxcnn.models import MODELS
from jaxcnn.optimizers import gauss_newton_diagonal, make_optimizer, make_schedule
from jaxcnn.pipeline import compose
from jaxcnn.step import Metrics, TrainState, create_state, train_steps, zero_metrics

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
    """

    def __init__(self, config: TrainConfig) -> None:
        """Loads the data, makes the state and places both.

        Raises:
          UserError: an unknown name, data that cannot be had, or fields that do not fit the data.
        """
        if config.compilation_cache:
            _use_compilation_cache()
        constructor = lookup("model", config.model, MODELS)
        dataset = datasets.load(
            config.dataset, data_dir=config.data_dir, manual_dir=config.manual_dir
        )
        num_examples = len(dataset.train_labels)
        if config.batch_size > num_examples:
            raise UserError(
                f"--batch-size {config.batch_size} is larger than the training set of "
                f"{config.dataset}, {num_examples:,} images"
            )
        self.config = config
        self.dataset = dataset
        self.mesh = mesh.data_mesh()
        mesh.check_batch_size(config.batch_size, self.mesh)
        self.steps_per_epoch = num_examples // config.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch

        self.schedule = make_schedule(
            config.optimizer, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
        )
        self._sharding = mesh.batch_sharding(self.mesh)
        self._training_images, self._test_images = compose(
            config.transforms, dataset.train_images, config.pixel_mean, config.pixel_std
        )
        self._train_set = self._place((dataset.train_images, dataset.train_labels))
        self._test_set = self._place((dataset.test_images, dataset.test_labels))
        init_key, self._order_key, step_key, image_key, self._curvature_key = self._place(
            tuple(jax.random.split(jax.random.key(config.seed), 5))
        )
        self._keys = image_key, step_key
        model = constructor(num_classes=len(dataset.class_names))
        if config.optimizer.name == "diagonal-lm" and not hasattr(model, "draw"):
            raise UserError(
                "--optimizer.name diagonal-lm needs a network that draws a target, as lenet5-1998 "
                f"does; {config.model} does not"
            )
        try:
            jax.eval_shape(self._training_images, image_key, dataset.train_images[:1])
            images = jax.eval_shape(self._test_images, dataset.test_images[:1])
            self.state = self._initial_state(model, images.shape[1:], init_key)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"model {config.model} and dataset {config.dataset} do not fit: {error}"
            ) from error

    def epoch_order(self, epoch: int) -> Int[Array, " examples"]:
        """The permutation of the training set for an epoch: a function of (seed, epoch) alone."""
        return self._order_program(self._order_key, self._scalar(epoch))

    def begin_epoch(self, state: TrainState, order: jax.Array) -> TrainState:
        """What is due before the first step of an epoch: for `diagonal-lm`, the curvature."""
        if self.config.optimizer.name == "diagonal-lm":
            state = self._curvature_program(state, self._train_set[0], order, self._curvature_key)
        return state

    def train(
        self, state: TrainState, metrics: Metrics, order: jax.Array, stop: int
    ) -> tuple[TrainState, Metrics]:
        """`step.train_steps` over the training set; takes `state` and `metrics` for its own."""
        return self._train_program(
            state, metrics, *self._train_set, order, self._scalar(stop), self._keys
        )

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Mean `loss` and `accuracy` over the whole test set."""
        return mean_metrics(self._evaluate_program(state, *self._test_set))

    def predict(self, state: TrainState) -> Float[np.ndarray, "examples classes"]:
        """The model's outputs for the whole test set, in order."""
        program = self._jit(functools.partial(predict, **self._evaluation))
        return np.asarray(program(state, self._test_set[0]))

    def compile(self) -> float:
        """Compiles what training needs, now; returns the seconds it took."""
        started = time.perf_counter()
        _ = self._order_program, self._train_program, self._evaluate_program
        if self.config.optimizer.name == "diagonal-lm":
            _ = self._curvature_program
        return time.perf_counter() - started

    def no_metrics(self) -> Metrics:
        """Sums to begin with, on every device."""
        return self._place(zero_metrics())

    def _initial_state(
        self, model: nn.Module, image_shape: tuple[int, ...], key: jax.Array
    ) -> TrainState:
        tx = make_optimizer(self.config.optimizer, self.schedule)
        # Random numbers compile slowly and are drawn once: on a CPU, LLVM's optimizations cost
        # eight times what the rest of this program does.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        create = functools.partial(create_state, model, tx, image_shape)
        return self._jit(create, compiler_options=options)(key)

    @functools.cached_property
    def _order_program(self) -> jax.stages.Compiled:
        num_examples = len(self.dataset.train_labels)

        def shuffle(key: jax.Array, epoch: jax.Array) -> jax.Array:
            return jax.random.permutation(jax.random.fold_in(key, epoch), num_examples)

        return self._jit(shuffle).lower(self._order_key, self._scalar(0)).compile()

    @functools.cached_property
    def _train_program(self) -> jax.stages.Compiled:
        program = functools.partial(
            train_steps,
            transform=self._training_images,
            batch_size=self.config.batch_size,
            sharding=self._sharding,
        )
        return (
            self._jit(program, donate_argnums=(0, 1))
            .lower(
                self.state,
                self.no_metrics(),
                *self._train_set,
                self.epoch_order(0),
                self._scalar(0),
                self._keys,
            )
            .compile()
        )

    @functools.cached_property
    def _curvature_program(self) -> jax.stages.Compiled:
        def estimate(
            state: TrainState, images: jax.Array, order: jax.Array, key: jax.Array
        ) -> TrainState:
            def draw(params: Any, image: jax.Array) -> jax.Array:
                return state.apply_fn({"params": params}, image, method="draw")

            # The first of the epoch's order: a random choice that is a new one in each epoch.
            images = self._test_images(images[order[:CURVATURE_EXAMPLES]])
            key = jax.random.fold_in(key, state.step)
            curvature = gauss_newton_diagonal(draw, state.params, images, key)
            opt_state = optax.tree_utils.tree_set(state.opt_state, curvature=curvature)
            return state.replace(opt_state=opt_state)

        return (
            self._jit(estimate, donate_argnums=0)
            .lower(self.state, self._train_set[0], self.epoch_order(0), self._curvature_key)
            .compile()
        )

    @functools.cached_property
    def _evaluate_program(self) -> jax.stages.Compiled:
        program = functools.partial(evaluate, **self._evaluation)
        return self._jit(program).lower(self.state, *self._test_set).compile()

    @property
    def _evaluation(self) -> dict[str, Any]:
        return {
            "transform": self._test_images,
            "batch_size": mesh.round_up(self.config.eval_batch_size, self.mesh),
            "sharding": self._sharding,
        }

    def _jit(self, function: Callable[..., Any], **kwargs: Any) -> Any:
        return jax.jit(function, out_shardings=mesh.replicated(self.mesh), **kwargs)

    def _place(self, tree: Any) -> Any:
        return mesh.replicate(tree, self.mesh)

    def _scalar(self, value: int) -> jax.Array:
        return self._place(np.int32(value))


def _use_compilation_cache() -> None:
    """Keeps compiled programs, unless the user's own settings of JAX already name a place."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        with contextlib.suppress(OSError):  # a read-only home: compile each time
            jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
