"""How far a run has come: what a checkpoint keeps of it, and what continues from there."""

import time

import jax
import numpy as np
import pytest
from helpers import Tiny

from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import RunError
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.progress import Run, save_checkpoint, start_or_resume
from jaxcnn.training.step import mean_metrics
from jaxcnn.workdir.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def experiment():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(64, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(3, size=64, dtype=np.int32)
    dataset = Dataset("noise", images, labels, images, labels, tuple("abc"))
    config = TrainConfig(
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1), batch_size=16, epochs=3
    )
    return Experiment(config, dataset=dataset, model=Tiny())


def new_run(experiment):
    copy = jax.tree.map(lambda leaf: leaf.copy(), experiment.state)  # training donates it
    return Run(copy, experiment.no_metrics(), started=time.perf_counter())


def test_start_or_resume_adds_up_the_seconds_of_all_starts(experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "compile", lambda: 7.0)
    run = new_run(experiment)
    run.started -= 50
    run.compile_seconds = 7.0
    with Checkpoints(tmp_path) as checkpoints:
        run.state, run.metrics = experiment.train(run.state, run.metrics, 2)
        run.step, run.train_seconds = 2, 2.0
        save_checkpoint(run, checkpoints, evaluated=False)
        checkpoints.wait()
        again = start_or_resume(experiment, checkpoints, time.perf_counter())
    assert again.step == 2 and again.test is None
    assert again.train_seconds == 2.0 and again.compile_seconds == 7.0 + 7.0
    assert 50 <= time.perf_counter() - again.started < 100
    assert mean_metrics(again.metrics) == mean_metrics(run.metrics)


def test_start_or_resume_starts_at_step_0_without_a_checkpoint(experiment, tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        run = start_or_resume(experiment, checkpoints, 0.0)
    assert run.step == 0 and run.state is experiment.state and run.compile_seconds > 0


@pytest.mark.parametrize(("evaluated", "best"), [(True, 0), (False, None)])
def test_save_checkpoint_notes_the_accuracy_of_an_evaluation(evaluated, best, experiment, tmp_path):
    run = new_run(experiment)
    run.test = {"accuracy": 0.5, "loss": 1.0, "num_examples": 64}
    with Checkpoints(tmp_path) as checkpoints:
        save_checkpoint(run, checkpoints, evaluated=evaluated)
        checkpoints.wait()
        if evaluated:
            assert checkpoints.resolve_step("best") == best
        else:
            with pytest.raises(ValueError, match="evaluated"):
                checkpoints.resolve_step("best")


@pytest.mark.parametrize(
    ("field", "name"), [("params", "a parameter"), ("opt_state", "the optimizer's state")]
)
def test_save_checkpoint_refuses_values_that_are_not_finite(field, name, experiment, tmp_path):
    run = new_run(experiment)
    values = jax.tree.map(
        lambda x: x + np.inf if x.dtype == np.float32 else x, getattr(run.state, field)
    )
    run.state = run.state.replace(**{field: values})
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match=f"^{name} is not finite at step 0"):
            save_checkpoint(run, checkpoints, evaluated=False)
        assert checkpoints.steps() == []
