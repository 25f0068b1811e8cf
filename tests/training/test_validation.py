"""Runs with a validation split: what they look at, when they stop, and that they resume."""

import dataclasses
import io
import json

import numpy as np
import pytest
from helpers import Tiny
from rich.console import Console

from jaxcnn import evaluate_run, report, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.data.transforms import Cutout
from jaxcnn.interop.trained import load_run
from jaxcnn.training import train
from jaxcnn.training.experiment import Experiment

CONFIG = TrainConfig(
    optimizer=OptimizerConfig(learning_rate=0.01),
    batch_size=16,
    epochs=40,
    val_fraction=0.2,
    patience=3,
    train_examples=48,
    label_noise=0.5,
    eval_training=True,
)


@pytest.fixture(scope="module")
def dataset():
    """Noise: what is learned of it does not help on other images."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(120, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(3, size=120, dtype=np.int32)
    return Dataset("noise", images[:80], labels[:80], images[80:], labels[80:], tuple("abc"))


def run(dataset, folder):
    config = dataclasses.replace(CONFIG, workdir=str(folder))
    return train_and_evaluate(config, dataset=dataset, model=Tiny())


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run that nothing disturbed: its folder, result, evaluated splits and output."""
    folder, looked_at, output = tmp_path_factory.mktemp("runs") / "whole", [], io.StringIO()
    evaluate = Experiment.evaluate

    def record(experiment, state, split="test"):
        looked_at.append(split)
        return evaluate(experiment, state, split)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Experiment, "evaluate", record)
        patch.setattr("jaxcnn.report.console", Console(file=output))
        patch.setattr("jaxcnn.training.report.console", report.console)
        result = run(dataset, folder)
    return folder, result, looked_at, output.getvalue()


def log(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_train_stops_without_improvement_and_tests_the_best_once(whole):
    folder, result, looked_at, output = whole
    assert looked_at[-1] == "test" and {*looked_at[:-1]} == {"validation", "train"}
    validations = looked_at.count("validation")
    assert result["stopped_early"] and result["steps"] == 3 * validations < 3 * 40
    accuracies = [line["val_accuracy"] for line in log(folder)]
    assert not any("test_accuracy" in line for line in log(folder))
    assert accuracies.index(max(accuracies)) == len(accuracies) - 1 - CONFIG.patience
    assert result["val_accuracy"] == max(accuracies) and result["num_val_examples"] == 16
    best = accuracies.index(max(accuracies))
    assert result["best_step"] == 3 * (best + 1) and result["num_train_eval_examples"] == 48
    for name in ("train_eval_accuracy", "train_eval_loss"):
        assert result[name] == log(folder)[best][name]
    assert result["best_step"] == load_run(folder, step="best", model=Tiny()).step
    before, _, after = output.partition("Stopped after")
    assert "validation accuracy" in before and "test" not in before and "test accuracy" in after
    assert "3 evaluations without a higher validation accuracy" in after


def test_train_evaluates_the_training_set_without_augmentation(dataset, tmp_path, capsys):
    same = dataclasses.replace(
        dataset, test_images=dataset.train_images, test_labels=dataset.train_labels
    )
    fields = {"val_fraction": 0.0, "patience": None, "train_examples": None, "label_noise": 0.0}
    fields |= {"epochs": 2, "transforms": (Cutout(3),), "workdir": str(tmp_path)}
    config = dataclasses.replace(CONFIG, **fields)
    result = train_and_evaluate(config, dataset=same, model=Tiny())
    for line in [*log(tmp_path), result]:
        for name in ("loss", "accuracy"):
            assert line[f"train_eval_{name}"] == line[f"test_{name}"]
        assert line.get("train_loss") != line["train_eval_loss"]
    assert result["num_train_eval_examples"] == 80
    output = capsys.readouterr().out
    accuracy = f"{result['train_eval_accuracy']:.2%}"
    assert f"; training set accuracy {accuracy}, loss " in output
    assert f"{accuracy} of 80 images, loss" in output


@pytest.mark.slow
def test_train_continues_a_killed_run_to_the_same_bits_and_stop(
    whole, dataset, tmp_path, monkeypatch
):
    folder, result, *_ = whole
    step_of = Experiment.train

    def die_in_the_last_epoch(experiment, state, metrics, stop):
        if int(state.step) == result["steps"] - 3:
            raise KeyboardInterrupt
        return step_of(experiment, state, metrics, stop)

    monkeypatch.setattr(Experiment, "train", die_in_the_last_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path)
    monkeypatch.undo()
    again = run(dataset, tmp_path)
    timed = {"train_seconds", "compile_seconds", "examples_per_second", "total_seconds"}
    assert {name: again[name] for name in again if name not in timed} == {
        name: result[name] for name in result if name not in timed
    }
    assert log(tmp_path) == log(folder)
    params, expected = (load_run(path, model=Tiny()).params for path in (tmp_path, folder))
    for name, leaf in expected["Dense_0"].items():
        np.testing.assert_array_equal(params["Dense_0"][name], leaf)


@pytest.mark.slow
def test_train_killed_before_the_test_only_tests(whole, dataset, monkeypatch):
    folder, result, *_ = whole
    (folder / "result.json").unlink()
    monkeypatch.setattr(train, "_train_chunks", lambda *_: iter(()))
    assert run(dataset, folder)["test_loss"] == result["test_loss"]


@pytest.mark.slow
def test_evaluate_run_repeats_the_figures_of_both_splits(whole, dataset, tmp_path):
    folder, result, *_ = whole
    for split, name in (("validation", "val"), ("test", "test"), ("train", "train_eval")):
        found = evaluate_run(
            folder, model=Tiny(), dataset=dataset, step="best", split=split, output=tmp_path
        )
        assert found["split"] == split and found["test_accuracy"] == result[f"{name}_accuracy"]
