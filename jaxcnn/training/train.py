"""From a config to a trained, checkpointed, evaluated network."""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxcnn import config as configs
from jaxcnn import records, report
from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.distributed import processes
from jaxcnn.errors import RunError
from jaxcnn.files import write_atomically
from jaxcnn.training import debug_nans
from jaxcnn.training.chunks import chunk_steps
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.memory import explain_exhaustion
from jaxcnn.training.progress import ADVICE, Run, save_checkpoint, start_or_resume
from jaxcnn.training.report import TrainingProgress, print_result, save_curves
from jaxcnn.training.signals import Interrupted, stop_signals
from jaxcnn.training.step import Metrics, all_finite, mean_metrics
from jaxcnn.training.validate import validated
from jaxcnn.workdir import dataset_info
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.folder import Result
from jaxcnn.workdir.metadata import Evaluation, Validation
from jaxcnn.workdir.metrics_log import MetricsLog

if TYPE_CHECKING:
    from jaxcnn.data.stream import StreamedDataset

_log = logging.getLogger(__name__)

# Seconds between checkpoints without `checkpoint_every_steps`. Each takes 0.05 to 0.1 s of a core,
# in which LeNet-5 trains 50 steps on a CPU and 1,000 on a GPU.
CHECKPOINT_SECONDS = 60


def train_and_evaluate(
    config: TrainConfig,
    *,
    dataset: Dataset | StreamedDataset | None = None,
    model: nn.Module | None = None,
    initial_params: Callable[[Any], Any] | None = None,
) -> Result:
    """Start or resume the run that `config` describes.

    An interrupted run that is started again with the same config continues from its last
    checkpoint and ends in the same bits. A finished run is only printed, or made longer if
    `config.continued_from` has its length.

    Args:
      config: the config of one of PRESETS, or `dataclasses.replace(...)` of one.
      dataset: a dataset to use instead of the one that the config names.
      model: a network to use instead of the one that the config names; see `models.network`.
      initial_params: function from the random initial parameters, on the host, to those with which
        a new run starts, such as `load_initial_params(config)`.

    Returns:
      The content of `result.json` in the run's folder.

    Raises:
      UserError: the config is out of range, its data cannot be read, or the run's folder cannot be
        written or holds a run of another config.
      RunError: the loss or a parameter is not finite, memory is exhausted, a checkpoint cannot be
        written, or all checkpoints are corrupt.
      Interrupted: the process received SIGINT or SIGTERM; a checkpoint was saved.
    """
    started = time.perf_counter()
    config = validated(config, dataset=dataset, model=model)
    others = processes.initialize(
        config.multihost, config.coordinator, config.num_processes, config.process_id
    )
    with others, workdirs.lock_run_folder(config) as workdir:
        report.console.quiet = not processes.is_process_0()
        if (result := workdirs.read_result(workdir, config.epochs)) is not None:
            report.say(f"This run is finished; {workdir} holds its result:")
            print_result(result, workdir)
            return result
        config = workdirs.with_earlier_lengths(config, workdir)
        with report.phase(f"loading {config.dataset}"):
            experiment = Experiment(config, dataset=dataset, model=model)
        with (
            explain_exhaustion(config, experiment.memory_needs),
            Checkpoints(workdir / "checkpoints", config) as checkpoints,
        ):
            info = dataset_info.describe(experiment.dataset)
            if checkpoints.steps():
                dataset_info.check_unchanged(workdir, info, config.dataset)
            run = start_or_resume(experiment, checkpoints, started, initial_params)
            if processes.is_process_0():
                dataset_info.write(workdir, info)
                (workdir / "result.json").unlink(missing_ok=True)  # of a run that is continued
                write_atomically(workdir / "config.json", configs.to_json(config))
            train(experiment, run, checkpoints, workdir)
            if config.val_fraction:
                _test_best(experiment, run, checkpoints)
        result = _result(experiment, run)
        if processes.is_process_0():
            write_atomically(workdir / "result.json", records.dumps(result))
            try:
                save_curves(workdir, workdir / "curves.png")
            except Exception as error:  # the result is saved, whatever matplotlib raises
                _log.warning("cannot draw %s: %s", workdir / "curves.png", error)
        print_result(result, workdir)
        return result


def train(experiment: Experiment, run: Run, checkpoints: Checkpoints, workdir: Path) -> None:
    """Train to the last step, with logs, evaluations and checkpoints."""
    config = experiment.config
    log = MetricsLog(workdir, step=run.step, expected=run.log) if processes.is_process_0() else None
    with (
        contextlib.closing(log) if log else contextlib.nullcontext(),
        contextlib.closing(experiment),
        stop_signals() as received,
        TrainingProgress(config, experiment.steps_per_epoch, run.step) as progress,
    ):
        saved = time.monotonic()
        for sums in _train_chunks(experiment, run):
            means = mean_metrics(sums) if sums["count"] else {}  # all were skipped
            progress.update(run.step, means.get("loss", math.nan))
            line: dict[str, float] = {}
            evaluated = _is_evaluated(experiment, run.step)
            if evaluated or run.step % config.log_every_steps == 0:
                updates = run.step - run.skipped_steps
                line["learning_rate"] = experiment.learning_rate(max(0, updates - 1))
                line |= {f"train_{name}": value for name, value in means.items()}
                if config.on_nonfinite == "skip":
                    line["skipped_steps"] = run.skipped_steps
                run.metrics = experiment.no_metrics()
            if evaluated:
                line |= _evaluate(experiment, run)
            if line and log:
                log.write(run.step, {"epoch": run.step / experiment.steps_per_epoch, **line})
            # All processes stop at the same step, whichever of them received the signal.
            stopping = processes.max_over_processes(received[0] if received else 0)
            if evaluated or stopping or _is_due(config, run.step, saved):
                run.log = log.sync() if log else None  # before the checkpoint that relies on it
                save_checkpoint(run, checkpoints, evaluated=evaluated)
                saved = time.monotonic()
            if stopping and not _is_finished(experiment, run):
                checkpoints.wait()
                raise Interrupted(run.step, experiment.total_steps, stopping)
        checkpoints.wait()


def _train_chunks(experiment: Experiment, run: Run) -> Iterator[Metrics]:
    """Train to the last step; after each chunk of steps, yield `run.metrics` on the host.

    A chunk ends early at a log line, a checkpoint or the end of an epoch.

    Raises:
      RunError: a value is not finite.
    """
    config, steps_per_epoch = experiment.config, experiment.steps_per_epoch
    due_every = [config.log_every_steps, config.checkpoint_every_steps, steps_per_epoch]
    max_steps = 1
    while not _is_finished(experiment, run):
        first = run.step
        if first % steps_per_epoch == 0:
            run.state = experiment.begin_epoch(run.state)
        stop = min(
            first + (1 if config.debug_nans else processes.max_over_processes(max_steps)),
            *(first - first % every + every for every in due_every if every),
        )
        before = jax.tree.map(jnp.copy, run.state) if config.debug_nans else None
        count = int(jax.device_get(run.metrics["count"]))
        started = time.perf_counter()
        run.state, run.metrics = experiment.train(run.state, run.metrics, stop)
        run.step = int(jax.device_get(run.state.step))  # waits for the device
        seconds = time.perf_counter() - started
        run.train_seconds += seconds
        sums = jax.device_get(run.metrics)
        trained = (int(sums["count"]) - count) // config.batch_size
        run.skipped_steps += run.step - first - trained
        finite = math.isfinite(sums["loss"])
        if before is not None and not (finite and jax.device_get(all_finite(run.state))):
            raise RunError(f"step {run.step:,}: {debug_nans.locate(experiment, before, run.state)}")
        if not finite:
            raise RunError(f"the loss is not finite at step {run.step:,}; {ADVICE}")
        max_steps = min(8 * max_steps, chunk_steps(seconds / (stop - first)))
        yield sums


def _evaluate(experiment: Experiment, run: Run) -> dict[str, float]:
    """Evaluate on the validation split, or else on the test set; return the values of the log.

    With `eval_training`, also evaluate on the training set.

    Raises:
      RunError: a loss is not finite.
    """
    found: dict[str, Evaluation] = {}
    if experiment.config.val_fraction:
        found["val"] = experiment.evaluate(run.state, "validation")
        run.validation = _compared(found["val"], run.validation)
    else:
        found["test"] = run.test = experiment.evaluate(run.state)
    if experiment.config.eval_training:
        found["train_eval"] = run.training = experiment.evaluate(run.state, "train")
    values: dict[str, float] = {}
    texts = []
    for split, means in found.items():
        name = {"val": "validation", "train_eval": "training set"}.get(split, split)
        if not math.isfinite(means["loss"]):
            raise RunError(f"the {name} loss is not finite at step {run.step:,}; {ADVICE}")
        values |= {f"{split}_loss": means["loss"], f"{split}_accuracy": means["accuracy"]}
        texts.append(f"{name} accuracy {means['accuracy']:.2%}, loss {means['loss']:.4f}")
    report.say(f"epoch {run.step // experiment.steps_per_epoch}: {'; '.join(texts)}")
    return values


def _compared(found: Evaluation, before: Validation | None) -> Validation:
    accuracy = found["accuracy"]
    if before is None or accuracy > before["best_accuracy"]:
        return {**found, "best_accuracy": accuracy, "evaluations_since_best": 0}
    since = before["evaluations_since_best"] + 1
    return {**found, "best_accuracy": before["best_accuracy"], "evaluations_since_best": since}


def _is_finished(experiment: Experiment, run: Run) -> bool:
    return run.step == experiment.total_steps or _is_out_of_patience(experiment, run)


def _is_out_of_patience(experiment: Experiment, run: Run) -> bool:
    patience, validation = experiment.config.patience, run.validation
    if patience is None or validation is None:
        return False
    return validation["evaluations_since_best"] >= patience


def _test_best(experiment: Experiment, run: Run, checkpoints: Checkpoints) -> None:
    """Evaluate the best checkpoint by validation on the test set, the only look at it."""
    if _is_out_of_patience(experiment, run):
        report.say(
            f"Stopped after {run.step / experiment.steps_per_epoch:.4g} of "
            f"{experiment.config.epochs} epochs: {experiment.config.patience} evaluations without "
            "a higher validation accuracy."
        )
    with report.phase("testing"):
        state, progress = checkpoints.restore(experiment.state, "best")
        run.test, run.validation = experiment.evaluate(state), progress.get("validation")
        run.training = progress.get("training")
        run.best_step = int(jax.device_get(state.step))


def _is_evaluated(experiment: Experiment, step: int) -> bool:
    every = experiment.config.eval_every_epochs * experiment.steps_per_epoch
    return step % every == 0 or step == experiment.total_steps


def _is_due(config: TrainConfig, step: int, saved: float) -> bool:
    """Return whether a checkpoint is due at a step; the last one was saved at the time `saved`."""
    if config.checkpoint_every_steps is not None:
        return step % config.checkpoint_every_steps == 0
    # The clocks of processes differ, and all must save the same step.
    return processes.any_process(time.monotonic() - saved >= CHECKPOINT_SECONDS)


def _result(experiment: Experiment, run: Run) -> Result:
    config, test = experiment.config, run.test
    assert test is not None  # the last step or the best one is evaluated
    packages = ("jaxcnn", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    result: Result = {
        "preset": config.preset,
        "model": config.model,
        "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(run.state.params)),
        "dataset": config.dataset,
        "seed": config.seed,
        "epochs": config.epochs,
        "continued_from": list(config.continued_from),
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
            **{package: report.package_version(package) for package in packages},
        },
    }
    if config.on_nonfinite == "skip" or run.skipped_steps:
        result["skipped_steps"] = run.skipped_steps
    if run.training is not None:
        result["train_eval_accuracy"] = run.training["accuracy"]
        result["train_eval_loss"] = run.training["loss"]
        result["num_train_eval_examples"] = run.training["num_examples"]
    if run.best_step is not None and run.validation is not None:
        result["best_step"] = run.best_step
        result["val_accuracy"] = run.validation["accuracy"]
        result["val_loss"] = run.validation["loss"]
        result["num_val_examples"] = run.validation["num_examples"]
        result["stopped_early"] = run.step < experiment.total_steps
    return result
