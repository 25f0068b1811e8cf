"""Everything a config builds: dataset, initial state and compiled programs, on the devices."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.open import open_dataset
from jaxcnn.data.preprocess import ViewsError, make_preprocess
from jaxcnn.data.splits import split_training_set
from jaxcnn.distributed import mesh
from jaxcnn.distributed.compilation_cache import use_compilation_cache
from jaxcnn.errors import UserError
from jaxcnn.models import network, variants
from jaxcnn.optim.optimizers import make_optimizer
from jaxcnn.optim.schedules import make_schedule
from jaxcnn.training import memory, validate
from jaxcnn.training.feed import EvaluationSplit, Feed
from jaxcnn.training.resident import ResidentFeed
from jaxcnn.training.step import (
    Metrics,
    TrainState,
    balanced_weights,
    create_state,
    mean_metrics,
    zero_metrics,
)
from jaxcnn.workdir.metadata import Evaluation

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset


class Experiment:
    """What a config builds; programs are compiled once, at their first use.

    Attributes:
      config: the config.
      dataset: the dataset, on the host, its training set split; see `splits`.
      mesh: mesh of all devices.
      state: training state at step 0, on every device.
      steps_per_epoch: whole batches in an epoch.
      total_steps: steps of the whole run.
      schedule: learning rate as a function of the step.
      preprocess: raw images to the network's input; see `preprocess.make_preprocess`.
      step_keys: random keys of the preprocessing and of the step; each step folds in its number.
      feed: brings the dataset's images to the compiled programs.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        dataset: Dataset | StreamedDataset | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """Load the data, make the state and place both on the devices.

        Args:
          config: the run; see `validate.validated`.
          dataset: a dataset to use instead of the one that the config names.
          model: a network to use instead of the one that the config names; see `models.network`.

        Raises:
          UserError: an unknown name, data that cannot be read, or fields that do not fit the data.
        """
        config = validate.validated(config, dataset=dataset, model=model)  # before data is loaded
        if config.compilation_cache:
            use_compilation_cache()
        if dataset is None:
            dataset = _open_dataset(config)
        dataset = split_training_set(
            dataset,
            val_fraction=config.val_fraction,
            train_examples=config.train_examples,
            label_noise=config.label_noise,
            seed=config.seed,
        )
        num_examples = len(dataset.train_images)
        validate.check_run_length(config, num_examples)
        self.config = config
        self.dataset = dataset
        self.mesh = mesh.device_mesh(config.model_axis)
        self.steps_per_epoch = num_examples // config.batch_size
        self.total_steps = config.epochs * self.steps_per_epoch
        self.schedule = make_schedule(
            config.optimizer, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
        )
        self.preprocess = make_preprocess(
            config.transforms, dataset.sample, config.pixel_mean, config.pixel_std
        )
        with jax.transfer_guard("allow"):  # the seed has to reach the device
            keys = tuple(jax.random.split(jax.random.key(config.seed), 5))
        init_key, order_key, step_key, image_key, self._epoch_key = mesh.replicate(keys, self.mesh)
        self.step_keys = image_key, step_key
        model = model or variants.constructor(config.model)(len(dataset.class_names))
        validate.check_network(config, model)
        if config.dtype != "float32":
            model = model.clone(dtype=jnp.dtype(config.dtype))
        self._code_fn = network.code_fn(model)
        optimizer = make_optimizer(
            config.optimizer, self.schedule, ema_decay=config.ema_decay, frozen=config.freeze
        )
        self._before_epoch = optimizer.before_epoch
        with memory.explain_exhaustion(config, lambda: memory.needs_of(dataset)):
            self.state = self._create_state(model, optimizer.tx, init_key, image_key)
            self.feed = self._make_feed((order_key, *self.step_keys))

    def with_params(self, params: Any) -> TrainState:
        """Return the state at step 0 with other parameters, equal in all processes."""
        state = self.state.replace(params=params, opt_state=self.state.tx.init(params))

        def place(leaf: Any, like: jax.Array) -> jax.Array:
            host = np.asarray(leaf, like.dtype)
            return jax.make_array_from_callback(
                like.shape, like.sharding, lambda index: host[index]
            )

        return jax.tree.map(place, state, self.state)

    def begin_epoch(self, state: TrainState) -> TrainState:
        """Return the state after what the optimizer does before the first step of an epoch."""
        memory.trim()
        if self._before_epoch is None:
            return state
        # The first images of the epoch's order are a new random choice in each epoch.
        epoch = int(jax.device_get(state.step)) // self.steps_per_epoch
        images = self.feed.first_images(epoch, self._before_epoch.num_examples)
        return self._before_epoch_program(state, images, self._epoch_key)

    def train(self, state: TrainState, metrics: Metrics, stop: int) -> tuple[TrainState, Metrics]:
        """Train from the step of `state` to step `stop` of the same epoch; donates both trees."""
        return self.feed.train(state, metrics, stop)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        with jax.transfer_guard("allow"):  # optax's constants have to reach the device
            return float(self.schedule(step))

    def evaluate(self, state: TrainState, split: EvaluationSplit = "test") -> Evaluation:
        """Return mean `loss` and `accuracy` over a split, and `num_examples`, its size."""
        metrics = jax.device_get(self.feed.evaluate(state, split))
        means = mean_metrics(metrics)
        return {
            "loss": means["loss"],
            "accuracy": means["accuracy"],
            "num_examples": int(metrics["count"]),
        }

    def compile(self) -> float:
        """Compile what training needs; return the seconds it took.

        Raises:
          UserError: the batch does not divide over the devices.
        """
        mesh.check_batch_size(self.config.batch_size, self.mesh)
        started = time.perf_counter()
        self.feed.compile()
        if self._before_epoch is not None:
            _ = self._before_epoch_program
        memory.trim()
        return time.perf_counter() - started

    def memory_needs(self) -> str:
        """Return what needs memory on each device, in words."""
        return memory.needs_of(self.dataset, self.state, vars(self.feed).get("train_program"))

    def close(self) -> None:
        """Stop reading images ahead; training can continue."""
        self.feed.close()

    def no_metrics(self) -> Metrics:
        """Return zero-initialized metric sums, on every device."""
        return mesh.replicate(zero_metrics(), self.mesh)

    def _create_state(
        self,
        model: nn.Module,
        tx: optax.GradientTransformation,
        init_key: jax.Array,
        image_key: jax.Array,
    ) -> TrainState:
        """Create the state on the devices, for images as the preprocessing returns them."""
        config = self.config
        class_weights = self._class_weights() if config.class_weights == "balanced" else None
        try:
            raw = jax.ShapeDtypeStruct((1, *self.dataset.train_images.shape[1:]), np.uint8)
            jax.eval_shape(self.preprocess.train, image_key, raw)
            to_views = functools.partial(self.preprocess.evaluate, views=config.eval_views)
            image_shape = jax.eval_shape(to_views, raw).shape[1:]
            create = functools.partial(
                create_state,
                *(model, tx, image_shape),
                label_smoothing=config.label_smoothing,
                class_weights=class_weights,
            )
            state_like = jax.eval_shape(create, init_key)
        except ViewsError as error:
            raise UserError(
                f"`eval_views` is {config.eval_views}: {error}; or add a crop to `transforms`"
            ) from error
        except (TypeError, ValueError) as error:
            raise UserError(
                f"model {config.model} and dataset {config.dataset} do not fit: {error}"
            ) from error
        validate.check_layers(config, list(state_like.params))
        # Random numbers compile slowly and are drawn once: on a CPU, LLVM's optimizations cost
        # eight times what the rest of this program does.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        sharding = mesh.state_sharding(state_like, self.mesh, network.model_axis(model))
        return mesh.jit(create, self.mesh, sharding, compiler_options=options)(init_key)

    def _class_weights(self) -> tuple[float, ...]:
        if (labels := self.dataset.train_labels) is None:
            raise UserError(
                f"`class_weights` is {self.config.class_weights}, but the sizes of the classes of "
                f"{self.config.dataset} are unknown; expected a folder or a dataset in memory"
            )
        return balanced_weights(labels, len(self.dataset.class_names))

    def _make_feed(self, keys: tuple[jax.Array, jax.Array, jax.Array]) -> Feed:
        make: Callable[..., Feed] = ResidentFeed
        if self.dataset.is_streamed:
            from jaxcnn.training.streamed import StreamedFeed as make  # late, as Grain
        probabilities = None
        if self.config.class_weights == "sampled":
            weights = np.array(self._class_weights())[self.dataset.train_labels]
            probabilities = weights / weights.sum()
        return make(
            *(self.dataset, self.config, self.mesh, self.preprocess, keys, self.state),
            probabilities,
        )

    @functools.cached_property
    def _before_epoch_program(self) -> Callable[..., TrainState]:
        before_epoch = self._before_epoch
        assert before_epoch is not None

        def run(state: TrainState, images: jax.Array, key: jax.Array) -> TrainState:
            key = jax.random.fold_in(key, state.step)
            inputs = self.preprocess.evaluate(images)
            opt_state = before_epoch.update(
                *(self._code_fn, state.params, state.opt_state, inputs, key),
                skip_nonfinite=self.config.on_nonfinite == "skip",
            )
            return state.replace(opt_state=opt_state)

        images = self.feed.first_images(0, before_epoch.num_examples)
        program = mesh.jit(run, self.mesh, mesh.shardings(self.state), donate_argnums=0)
        return mesh.compile_for(program, self.state, images, self._epoch_key)


def _open_dataset(config: TrainConfig) -> Dataset | StreamedDataset:
    return open_dataset(
        config.dataset,
        **configs.dataset_options(config),
    )
