"""From a config to a trained, checkpointed, evaluated network: the only file that knows them all."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxcnn import augment, datasets, mesh, report
from jaxcnn import config as configs
from jaxcnn import workdir as workdirs
from jaxcnn.cache import cache_dir
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import TrainConfig
from jaxcnn.datasets import Dataset
from jaxcnn.errors import RunError, UserError
from jaxcnn.evaluate import evaluate, mean_metrics
from jaxcnn.models import MODELS
from jaxcnn.optimizers import make_optimizer
from jaxcnn.step import Metrics, TrainState, create_state, train_steps, zero_metrics

CHUNK_SECONDS = 0.5  # between two looks at the device: how long the progress bar and signals wait


def train_and_evaluate(config: TrainConfig) -> dict[str, Any]:
    """Starts, or goes on with, the run that `config` describes.

    A run that was interrupted, by whatever means, goes on from its last checkpoint when it is
    started again with the same config, and ends in the same bits. A finished run is only shown.

    Args:
      config: one of PRESETS, or `dataclasses.replace(...)` of one.

    Returns:
      What `result.json` in the run's folder holds.

    Raises:
      UserError: the config is out of range, its data cannot be had, or the run's folder cannot be
        written or holds a run of another config.
      RunError: the loss or a parameter is not finite, or a checkpoint cannot be written.
      Interrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    started = time.perf_counter()
    configs.check(config)
    with workdirs.claim(config) as workdir:
        if (result := workdirs.read_result(workdir)) is not None:
            report.say(f"This run is finished; {workdir} holds its result:")
            report.print_result(result, workdir)
            return result
        setup = set_up(config)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            run = _start_or_resume(setup, checkpoints, started)
            workdirs.write_atomically(workdir / "config.json", configs.to_json(config))
            _train(setup, run, checkpoints, workdir)
        report.save_curves(workdir, workdir / "curves.png")
        result = _result(setup, run)
        workdirs.write_atomically(workdir / "result.json", json.dumps(result, indent=2) + "\n")
        report.print_result(result, workdir)
        return result


class Interrupted(RunError):
    """A signal ended the run, after a checkpoint; the same command goes on from there."""

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} at step {step:,} of {total_steps:,}; "
            "a checkpoint is saved, and the same command goes on from it"
        )
        self.exit_code = 128 + signal_number


@dataclasses.dataclass(frozen=True)
class Setup:
    """What a config stands for: the data and a fresh state on the devices, and how they meet."""

    config: TrainConfig
    dataset: Dataset  # on the host
    mesh: Mesh
    train_set: tuple[jax.Array, jax.Array]  # images and labels, as stored
    test_set: tuple[jax.Array, jax.Array]
    state: TrainState  # at step 0
    order_key: jax.Array
    step_key: jax.Array
    batching: dict[str, Any]  # how rows of a set become a batch: keywords of every program over one

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train_labels) // self.config.batch_size

    @property
    def total_steps(self) -> int:
        return self.config.epochs * self.steps_per_epoch


def set_up(config: TrainConfig) -> Setup:
    """Loads the data and makes the state at step 0, placed on all devices.

    Raises:
      UserError: an unknown name, data that cannot be had, or fields that do not fit the data.
    """
    if config.compilation_cache:
        _use_compilation_cache()
    constructor = configs.lookup("model", config.model, MODELS)
    dataset = datasets.load(config.dataset, data_dir=config.data_dir, manual_dir=config.manual_dir)
    if config.batch_size > len(dataset.train_labels):
        raise UserError(
            f"--batch-size {config.batch_size} is larger than the training set of "
            f"{config.dataset}, {len(dataset.train_labels):,} images"
        )
    devices = mesh.data_mesh()
    mesh.check_batch_size(config.batch_size, devices)
    transform = functools.partial(
        augment.normalize, mean=config.pixel_mean, std=config.pixel_std
    )
    init_key, order_key, step_key = mesh.replicate(
        tuple(jax.random.split(jax.random.key(config.seed), 3)), devices
    )
    create = functools.partial(
        create_state,
        constructor(num_classes=len(dataset.class_names)),
        make_optimizer(config.optimizer),
        dataset.train_images.shape[1:],
    )
    try:
        jax.eval_shape(transform, dataset.train_images[:1])
        state = jax.jit(create, out_shardings=mesh.replicated(devices))(init_key)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"model {config.model} and dataset {config.dataset} do not fit: {error}"
        ) from error
    return Setup(
        config,
        dataset,
        devices,
        mesh.replicate((dataset.train_images, dataset.train_labels), devices),
        mesh.replicate((dataset.test_images, dataset.test_labels), devices),
        state,
        order_key,
        step_key,
        {"transform": transform, "batch_sharding": mesh.batch_sharding(devices)},
    )


@dataclasses.dataclass
class Run:
    """How far a run has come."""

    state: TrainState
    metrics: Metrics  # sums since the last logged step
    started: float  # on time.perf_counter's clock, moved back by what earlier sessions took
    step: int = 0
    test: dict[str, float] | None = None  # the last evaluation
    train_seconds: float = 0.0
    compile_seconds: float = 0.0


def _start_or_resume(setup: Setup, checkpoints: Checkpoints, started: float) -> Run:
    metrics = _no_metrics(setup)
    restored = checkpoints.restore_latest(setup.state)
    if restored is None:
        return Run(setup.state, metrics, started)
    state, metadata = restored
    progress = metadata["progress"]
    run = Run(
        state,
        {name: jnp.full_like(zero, progress["metrics"][name]) for name, zero in metrics.items()},
        started - progress["total_seconds"],
        int(state.step),
        progress["test"],
        progress["train_seconds"],
        progress["compile_seconds"],
    )
    report.say(f"Going on from the checkpoint of step {run.step:,} of {setup.total_steps:,}.")
    return run


def _save(run: Run, checkpoints: Checkpoints, config: TrainConfig, *, evaluated: bool) -> None:
    """What `_start_or_resume` reads."""
    progress = {
        "metrics": {name: total.item() for name, total in run.metrics.items()},
        "test": run.test,
        "train_seconds": run.train_seconds,
        "compile_seconds": run.compile_seconds,
        "total_seconds": time.perf_counter() - run.started,
    }
    checkpoints.save(
        run.state,
        {"config": dataclasses.asdict(config), "progress": progress},
        test_accuracy=run.test["accuracy"] if evaluated and run.test else None,
    )


def _train(setup: Setup, run: Run, checkpoints: Checkpoints, workdir: Path) -> None:
    """Trains to the last step; logs, evaluates and saves on the way."""
    config, steps_per_epoch, total_steps = setup.config, setup.steps_per_epoch, setup.total_steps
    programs = _compile(setup, run)
    log = report.MetricsLog(workdir, step=run.step)
    with contextlib.closing(log), _stop_signals() as received, report.progress_bar() as bar:
        task = bar.add_task(config.preset, total=total_steps, completed=run.step, metrics="")
        for seconds in _train_chunks(setup, programs, run):
            bar.update(task, completed=run.step)
            line: dict[str, float] = {}
            if run.step % config.log_every_steps == 0:
                line |= _prefixed("train", mean_metrics(run.metrics))
                run.metrics = _no_metrics(setup)
                bar.update(task, metrics=f"loss {line['train_loss']:.4f}")
            evaluated = _is_evaluated(setup, run.step)
            if evaluated:
                run.test = mean_metrics(programs.evaluate(run.state))
                line |= _prefixed("test", run.test)
                report.say(
                    f"epoch {run.step // steps_per_epoch}: test accuracy "
                    f"{run.test['accuracy']:.2%}, loss {run.test['loss']:.4f}"
                )
            if line:
                log.write(run.step, {"epoch": run.step / steps_per_epoch, **line})
            if evaluated or received or run.step % config.checkpoint_every_steps == 0:
                _save(run, checkpoints, config, evaluated=evaluated)
            if received and run.step < total_steps:
                checkpoints.wait()
                raise Interrupted(run.step, total_steps, received[0])
        checkpoints.wait()


def _train_chunks(setup: Setup, programs: Programs, run: Run) -> Iterator[float]:
    """Trains to the last step, pausing after chunks of steps.

    A chunk takes about CHUNK_SECONDS and ends early where something is due: a line in the log, a
    checkpoint, the end of an epoch.

    Raises:
      RunError: the loss is not finite.
    """
    config = setup.config
    due_every = (config.log_every_steps, config.checkpoint_every_steps, setup.steps_per_epoch)
    chunk_steps, order = 1, None
    while run.step < setup.total_steps:
        first = run.step
        if order is None or first % setup.steps_per_epoch == 0:
            order = programs.epoch_order(first // setup.steps_per_epoch)
        stop = min(first + chunk_steps, *(first - first % every + every for every in due_every))
        started = time.perf_counter()
        run.state, run.metrics = programs.train(run.state, run.metrics, order, stop)
        run.step = int(run.state.step)  # waits for the device
        seconds = time.perf_counter() - started
        run.train_seconds += seconds
        if not math.isfinite(run.metrics["loss"]):
            raise RunError(
                f"the loss is not finite at step {run.step:,}; earlier checkpoints are kept; "
                "try a smaller --optimizer.learning-rate, in another --workdir"
            )
        chunk_steps = max(1, min(8 * chunk_steps, int(CHUNK_SECONDS * (stop - first) / seconds)))
        yield seconds


def _is_evaluated(setup: Setup, step: int) -> bool:
    every = setup.config.eval_every_epochs * setup.steps_per_epoch
    return step % every == 0 or step == setup.total_steps


def _no_metrics(setup: Setup) -> Metrics:
    return mesh.replicate(zero_metrics(), setup.mesh)


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in metrics.items()}


class Programs(NamedTuple):
    """The compiled programs of a run, each traced once."""

    train: Callable[[TrainState, Metrics, jax.Array, int], tuple[TrainState, Metrics]]
    evaluate: Callable[[TrainState], Metrics]
    epoch_order: Callable[[int], jax.Array]


def _compile(setup: Setup, run: Run) -> Programs:
    started = time.perf_counter()
    jit = functools.partial(jax.jit, out_shardings=mesh.replicated(setup.mesh))

    def scalar(value: int) -> jax.Array:
        return mesh.replicate(np.int32(value), setup.mesh)

    def shuffle(key: jax.Array, epoch: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), len(setup.train_set[1]))

    order = jit(shuffle).lower(setup.order_key, scalar(0)).compile()
    train = (
        jit(
            functools.partial(train_steps, batch_size=setup.config.batch_size, **setup.batching),
            donate_argnums=(0, 1),
        )
        .lower(
            run.state,
            run.metrics,
            *setup.train_set,
            order(setup.order_key, scalar(0)),
            scalar(0),
            setup.step_key,
        )
        .compile()
    )
    test = (
        jit(
            functools.partial(
                evaluate,
                batch_size=mesh.round_up(setup.config.eval_batch_size, setup.mesh),
                **setup.batching,
            )
        )
        .lower(run.state, *setup.test_set)
        .compile()
    )
    run.compile_seconds += time.perf_counter() - started
    return Programs(
        lambda state, metrics, order, stop: train(
            state, metrics, *setup.train_set, order, scalar(stop), setup.step_key
        ),
        lambda state: test(state, *setup.test_set),
        lambda epoch: order(setup.order_key, scalar(epoch)),
    )


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted in a list; a second one of the same kind acts as ever."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return

    def note(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _result(setup: Setup, run: Run) -> dict[str, Any]:
    config, test = setup.config, run.test or {}
    packages = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "preset": config.preset,
        "model": config.model,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(run.state.params)),
        "dataset": config.dataset,
        "seed": config.seed,
        "epochs": config.epochs,
        "steps": run.step,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "num_test_examples": len(setup.dataset.test_labels),
        "train_seconds": round(run.train_seconds, 3),
        "compile_seconds": round(run.compile_seconds, 3),
        "examples_per_second": round(run.step * config.batch_size / run.train_seconds, 1),
        "total_seconds": round(time.perf_counter() - run.started, 3),
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }


def _use_compilation_cache() -> None:
    """Keeps compiled programs, unless the user's own settings of JAX already name a place."""
    if jax.config.jax_compilation_cache_dir is None:
        with contextlib.suppress(OSError):  # a read-only home: compile each time
            jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
