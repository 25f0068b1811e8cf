"""What studies read in the log of a run, and of its gradients and units."""

import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_network, write_run

from jaxcnn import PRESETS
from jaxcnn.studies import gradient_measures, learning, measures, relu


def write_log(run: Path, lines):
    write_run(run, PRESETS["lenet5-mnist5k"].config, 0.97)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_errors_by_epoch_weight_the_lines_of_the_log_by_their_steps(tmp_path):
    end = {"train_eval_loss": 0.1, "test_loss": 0.1}
    write_log(
        tmp_path / "run",
        [
            {"step": 20, "epoch": 0.4, "train_loss": 2.0, "train_accuracy": 0.5},
            {"step": 50, "epoch": 1.0, "train_loss": 1.0, "train_accuracy": 0.8}
            | {"train_eval_accuracy": 0.9, "test_accuracy": 0.92, **end},
            {"step": 60, "epoch": 1.2, "train_loss": 0.5, "train_accuracy": 0.9},
            {"step": 100, "epoch": 2.0, "train_loss": 0.4, "train_accuracy": 0.95}
            | {"train_eval_accuracy": 0.97, "test_accuracy": 0.91, **end},
        ],
    )
    errors = measures.errors_by_epoch(tmp_path / "run")
    assert errors["training_errors_during"] == pytest.approx([100 * (1 - 0.68), 100 * (1 - 0.94)])
    assert errors["training_errors_after"] == pytest.approx([10, 3])
    assert errors["test_errors"] == pytest.approx([8, 9]) and errors["rise"] == pytest.approx(1)
    assert errors["training_error_during_1"] == pytest.approx(32)
    assert measures.last_errors(tmp_path / "run") == pytest.approx(
        {"test_error": 3, "training_error": 6}
    )
    losses = measures.loss_by_epoch(tmp_path / "run")["train_loss"]
    assert losses == pytest.approx([1.4, 0.42])


@pytest.mark.parametrize(
    ("errors", "epochs"), [((0.5, 0.3, 0.1), 2.25), ((0.2, 0.1), 1), ((0.9, 0.26), 2)]
)
def test_epochs_to_quarter_are_interpolated(tmp_path, errors, epochs):
    lines = [
        {"step": 10 * epoch, "epoch": float(epoch), "train_loss": 1.0, "train_accuracy": 1 - error}
        for epoch, error in enumerate(errors, 1)
    ]
    write_log(tmp_path / "run", lines)
    measured = measures.epochs_to_quarter(tmp_path / "run")
    assert measured["epochs"] == pytest.approx(epochs)
    assert measured["training_errors"] == pytest.approx([100 * error for error in errors])


def test_ratios_of_epochs_compare_the_activations_of_the_same_initial_values():
    arms = {"ReLU": 6, "tanh": 36, "ReLU, by fan-in": 4, "tanh, by fan-in": 5}
    measured = {name: {"epochs": float(epochs)} for name, epochs in arms.items()}
    assert [each.compute(measured) for each in relu.RELU.derived] == [6, 1.25]


def test_exponent_of_a_power_law_is_found():
    arms = {
        f"{size:,} images": {"test_error": 1 + 50 * size**-0.7, "training_error": 1.0}
        for size in (15_000, 30_000, 60_000)
    }
    [alpha] = learning.SIZE.derived
    assert alpha.compute(arms) == pytest.approx(0.7)
    arms["60,000 images"]["training_error"] = 9.0  # above the test error
    assert math.isnan(alpha.compute(arms))


@pytest.mark.parametrize(
    ("activation", "scale", "share"),
    [("sigmoid", 1e-3, 0), ("sigmoid", 1e3, 100), ("relu", 1, 50)],
)
def test_flat_units_are_those_whose_derivative_is_small(activation, scale, share):
    trained = random_network(f"lenet5:activation={activation}")
    params = {
        layer: {"kernel": scale * each["kernel"], "bias": np.zeros_like(each["bias"])}
        for layer, each in trained.params.items()
    }
    images = jnp.asarray(np.random.default_rng(0).normal(size=(20, 28, 28, 1)), jnp.float32)
    model = trained.model
    found = gradient_measures.flat_units(model, model.activation, params, images)
    assert found == pytest.approx(share, abs=10 if activation == "relu" else 1)


@pytest.mark.slow
def test_gradient_norms_are_those_of_a_loss_that_moves_by_them():
    trained = random_network("lenet5-tanh")
    images = jnp.asarray(np.random.default_rng(0).normal(size=(8, 28, 28, 1)), jnp.float32)
    labels = np.arange(8)
    norms = gradient_measures.gradient_norms(trained.model, trained.params, images, labels)
    # The gradient by the output's kernel is (probabilities - one-hot) times F6's units.
    model = trained.model
    logits, variables = model.apply(
        {"params": trained.params}, images, capture_intermediates=True, mutable="intermediates"
    )
    units = np.tanh(variables["intermediates"]["F6"]["__call__"][0])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    grad = units.T @ (probabilities - np.eye(10)[labels]) / 8
    assert norms["output"] == pytest.approx(np.sqrt(np.square(grad).mean()), rel=1e-4)
