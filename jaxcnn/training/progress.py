"""The progress of a run: start, resume, save."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import report
from jaxcnn.errors import RunError, UserError
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.step import Metrics, TrainState, all_finite
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metadata import Evaluation, Progress, Validation
from jaxcnn.workdir.metrics_log import LogDigest


@dataclasses.dataclass
class Run:
    """Progress of a run: its state, and what reports and checkpoints need besides."""

    state: TrainState
    metrics: Metrics  # sums since the last logged step
    started: float  # on the clock of time.perf_counter, minus the seconds of earlier sessions
    step: int = 0
    test: Evaluation | None = None  # the last one
    validation: Validation | None = None  # the last one
    training: Evaluation | None = None  # the last one, of the images that are trained on
    best_step: int | None = None  # step of the test figures, in a run with a validation split
    log: LogDigest | None = None  # of the log up to this step
    train_seconds: float = 0.0
    compile_seconds: float = 0.0
    skipped_steps: int = 0  # steps that were not finite, and left out


def start_or_resume(
    experiment: Experiment,
    checkpoints: Checkpoints,
    started: float,
    initial_params: Callable[[Any], Any] | None = None,
) -> Run:
    """Return a new run, or the one that the latest checkpoint holds; compile its programs.

    Args:
      experiment: experiment of the run.
      checkpoints: checkpoints of the run.
      started: time of the start, on the clock of `time.perf_counter`.
      initial_params: function from the random initial parameters, on the host, to those with which
        a new run starts. They are saved as the checkpoint of step 0.
    """
    run = Run(experiment.state, experiment.no_metrics(), started)
    restored = checkpoints.restore_latest(experiment.state)
    if restored is not None:
        run.state, progress = restored
        run.step = int(jax.device_get(run.state.step))
        run.metrics = jax.tree.map(jnp.full_like, run.metrics, dict(progress["metrics"]))
        run.started -= progress["total_seconds"]
        run.test = progress["test"]
        run.validation = progress.get("validation")
        run.training = progress.get("training")
        run.log = progress.get("log")
        run.train_seconds = progress["train_seconds"]
        run.compile_seconds = progress["compile_seconds"]
        run.skipped_steps = progress.get("skipped_steps", 0)
        report.say(f"Going on from the checkpoint of step {run.step:,}.")
    elif initial_params is not None:
        run.state = experiment.with_params(initial_params(jax.device_get(run.state.params)))
        save_checkpoint(run, checkpoints, evaluated=False)
    elif experiment.config.init_from is not None:
        raise UserError(
            f"`init_from` is {experiment.config.init_from}, but its parameters were not passed; "
            "pass initial_params=jaxcnn.load_initial_params(config)"
        )
    with report.phase("compiling"):
        run.compile_seconds += experiment.compile()
    return run


def save_checkpoint(run: Run, checkpoints: Checkpoints, *, evaluated: bool) -> None:
    """Save a checkpoint from which the same config resumes.

    Raises:
      RunError: a value of the state is not finite, or the checkpoint cannot be written.
    """
    params, opt_state = jax.device_get(_are_finite(run.state.params, run.state.opt_state))
    if not params:
        raise RunError(f"a parameter is not finite at step {run.step:,}; {ADVICE}")
    if not opt_state:  # an infinite second moment of Adam stops a parameter
        raise RunError(f"the optimizer's state is not finite at step {run.step:,}; {ADVICE}")
    sums: Any = {name: total.item() for name, total in jax.device_get(run.metrics).items()}
    progress: Progress = {
        "metrics": sums,
        "test": run.test,
        "train_seconds": run.train_seconds,
        "compile_seconds": run.compile_seconds,
        "total_seconds": time.perf_counter() - run.started,
        "log": run.log,
        "skipped_steps": run.skipped_steps,
    }
    if run.validation:
        progress["validation"] = run.validation
    if run.training:
        progress["training"] = run.training
    checkpoints.save(
        run.state,
        progress,
        test_accuracy=run.test["accuracy"] if evaluated and run.test else None,
        val_accuracy=run.validation["accuracy"] if evaluated and run.validation else None,
    )


@jax.jit
def _are_finite(*trees: Any) -> tuple[jax.Array, ...]:
    return tuple(all_finite(tree) for tree in trees)


ADVICE = (
    "the checkpoints before it are kept; add `debug_nans` to see which layer it is, or "
    "`on_nonfinite` skip to leave such steps out, or try a smaller `optimizer.learning_rate` in "
    "another `workdir`"
)
