"""From a config to a trained, checkpointed, evaluated network."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import platform
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.markup import escape

from jaxcnn import config as configs
from jaxcnn import processes, report
from jaxcnn import workdir as workdirs
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import TrainConfig
from jaxcnn.errors import RunError
from jaxcnn.evaluate import mean_metrics
from jaxcnn.experiment import Experiment, check_names
from jaxcnn.step import Metrics, TrainState

# Between two looks at the device: what the bar waits, and signals where nothing is evaluated.
CHUNK_SECONDS = 0.5


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
      RunError: the loss or a parameter is not finite, a checkpoint cannot be written, or all that
        there are are damaged.
      Interrupted: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    started = time.perf_counter()
    configs.check(config)
    check_names(config)
    config = configs.with_whole_paths(config)
    with processes.joined(config), workdirs.claim(config) as workdir:
        report.console.quiet = not processes.is_first()
        if (result := workdirs.read_result(workdir)) is not None:
            report.say(f"This run is finished; {workdir} holds its result:")
            report.print_result(result, workdir)
            return result
        experiment = Experiment(config)
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            run = _start_or_resume(experiment, checkpoints, started)
            workdirs.write_atomically(workdir / "config.json", configs.to_json(config))
            _train(experiment, run, checkpoints, workdir)
        if processes.is_first():
            report.save_curves(workdir, workdir / "curves.png")
        result = _result(experiment, run)
        workdirs.write_atomically(workdir / "result.json", json.dumps(result, indent=2) + "\n")
        report.print_result(result, workdir)
        return result


class Interrupted(RunError):
    """A signal ended the run, after a checkpoint; the same command goes on from there."""

    everywhere = True

    def __init__(self, step: int, total_steps: int, signal_number: int) -> None:
        super().__init__(
            f"stopped by {signal.Signals(signal_number).name} at step {step:,} of {total_steps:,}; "
            "a checkpoint is saved, and the same command goes on from it"
        )
        self.exit_code = 128 + signal_number


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


def _start_or_resume(experiment: Experiment, checkpoints: Checkpoints, started: float) -> Run:
    run = Run(experiment.state, experiment.no_metrics(), started)
    restored = checkpoints.restore_latest(experiment.state)
    if restored is not None:
        run.state, metadata = restored
        run.step = int(run.state.step)
        progress = metadata["progress"]
        run.metrics = jax.tree.map(jnp.full_like, run.metrics, progress["metrics"])
        run.started -= progress["total_seconds"]
        run.test = progress["test"]
        run.train_seconds = progress["train_seconds"]
        run.compile_seconds = progress["compile_seconds"]
        report.say(f"Going on from the checkpoint of step {run.step:,}.")
    run.compile_seconds += experiment.compile()
    return run


def save_checkpoint(run: Run, checkpoints: Checkpoints, *, evaluated: bool) -> None:
    """Saves what a start of the same config goes on from.

    Raises:
      RunError: a parameter is not finite, or the checkpoint cannot be written.
    """
    if not _all_finite(run.state.params):
        raise RunError(f"a parameter is not finite at step {run.step:,}; {_ADVICE}")
    progress = {
        "metrics": {name: total.item() for name, total in run.metrics.items()},
        "test": run.test,
        "train_seconds": run.train_seconds,
        "compile_seconds": run.compile_seconds,
        "total_seconds": time.perf_counter() - run.started,
    }
    checkpoints.save(
        run.state,
        {"progress": progress},
        test_accuracy=run.test["accuracy"] if evaluated and run.test else None,
    )


def _train(experiment: Experiment, run: Run, checkpoints: Checkpoints, workdir: Path) -> None:
    """Trains to the last step; logs, evaluates and saves on the way."""
    config = experiment.config
    log = report.MetricsLog(workdir, step=run.step)
    with (
        contextlib.closing(log),
        contextlib.closing(experiment),
        _stop_signals() as received,
        report.progress_bar() as bar,
    ):
        task = bar.add_task(escape(config.preset), total=experiment.total_steps, metrics="")
        bar.update(task, completed=run.step)
        for _ in _train_chunks(experiment, run):
            bar.update(task, completed=run.step)
            line: dict[str, float] = {}
            evaluated = _is_evaluated(experiment, run.step)
            if evaluated or run.step % config.log_every_steps == 0:
                line["learning_rate"] = experiment.learning_rate(run.step - 1)
                line |= {f"train_{name}": v for name, v in mean_metrics(run.metrics).items()}
                run.metrics = experiment.no_metrics()
                bar.update(task, metrics=f"loss {line['train_loss']:.4f}")
            if evaluated:
                run.test = experiment.evaluate(run.state)
                line |= {f"test_{name}": run.test[name] for name in ("loss", "accuracy")}
                report.say(
                    f"epoch {run.step // experiment.steps_per_epoch}: test accuracy "
                    f"{run.test['accuracy']:.2%}, loss {run.test['loss']:.4f}"
                )
            if line:
                log.write(run.step, {"epoch": run.step / experiment.steps_per_epoch, **line})
            # The same in all processes, whichever of them was told to stop.
            stopping = processes.largest(received[0] if received else 0)
            if evaluated or stopping or run.step % config.checkpoint_every_steps == 0:
                save_checkpoint(run, checkpoints, evaluated=evaluated)
            if stopping and run.step < experiment.total_steps:
                checkpoints.wait()
                raise Interrupted(run.step, experiment.total_steps, stopping)
        checkpoints.wait()


def _train_chunks(experiment: Experiment, run: Run) -> Iterator[None]:
    """Trains to the last step, with a pause after each chunk of steps.

    A chunk takes about CHUNK_SECONDS and ends early where something is due: a line in the log, a
    checkpoint, the end of an epoch.

    Raises:
      RunError: the loss is not finite.
    """
    config, steps_per_epoch = experiment.config, experiment.steps_per_epoch
    due_every = (config.log_every_steps, config.checkpoint_every_steps, steps_per_epoch)
    chunk_steps = 1
    while run.step < experiment.total_steps:
        first = run.step
        if first % steps_per_epoch == 0:
            run.state = experiment.begin_epoch(run.state)
        stop = min(
            first + processes.largest(chunk_steps),
            *(first - first % every + every for every in due_every),
        )
        started = time.perf_counter()
        run.state, run.metrics = experiment.train(run.state, run.metrics, stop)
        run.step = int(jax.device_get(run.state.step))  # waits for the device
        seconds = time.perf_counter() - started
        run.train_seconds += seconds
        if not math.isfinite(jax.device_get(run.metrics["loss"])):
            raise RunError(f"the loss is not finite at step {run.step:,}; {_ADVICE}")
        chunk_steps = max(1, min(8 * chunk_steps, int(CHUNK_SECONDS * (stop - first) / seconds)))
        yield


_ADVICE = (
    "the checkpoints before it are kept; try a smaller --optimizer.learning-rate, "
    "in another --workdir"
)


@jax.jit
def _all_finite(params: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()


def _is_evaluated(experiment: Experiment, step: int) -> bool:
    every = experiment.config.eval_every_epochs * experiment.steps_per_epoch
    return step % every == 0 or step == experiment.total_steps


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

    previous: dict[int, Any] = {
        number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _result(experiment: Experiment, run: Run) -> dict[str, Any]:
    config, test = experiment.config, run.test or {}
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
        "num_test_examples": test["num_examples"],
        "train_seconds": round(run.train_seconds, 3),
        "compile_seconds": round(run.compile_seconds, 3),
        "examples_per_second": round(run.step * config.batch_size / run.train_seconds, 1),
        "total_seconds": round(time.perf_counter() - run.started, 3),
        "devices": [
            f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()
        ],
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
    }
