"""Runs that start from a trained network."""

import dataclasses
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest
from helpers import random_params

from jaxcnn import PRESETS, load_initial_params, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError
from jaxcnn.interop.initialize import merge
from jaxcnn.interop.torch_weights import to_torch
from jaxcnn.interop.trained import load_run
from jaxcnn.interop.weight_files import write_weights
from jaxcnn.models import MODELS
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir.checkpoints import Checkpoints

TEN = random_params(MODELS["lenet5"](10), (28, 28, 1), seed=1)
FIVE = random_params(MODELS["lenet5"](5), (28, 28, 1), seed=2)


def config_of(**fields):
    return TrainConfig(init_from="weights", **fields)


def taken_layers(merged, trained):
    return {layer for layer, params in merged.items() if params is trained.get(layer)}


@pytest.mark.parametrize(
    ("fields", "initial", "taken"),
    [
        ({}, TEN, {"C1", "C3", "C5", "F6", "output"}),
        ({}, FIVE, {"C1", "C3", "C5", "F6"}),
        ({"new_head": True}, TEN, {"C1", "C3", "C5", "F6"}),
        ({"init_only": ("C1", "C3")}, FIVE, {"C1", "C3"}),
    ],
)
def test_merge_takes_what_the_config_names(fields, initial, taken, capsys):
    trained = random_params(MODELS["lenet5"](10), (28, 28, 1), seed=3)
    merged = merge(config_of(**fields), trained, initial)
    assert taken_layers(merged, trained) == taken
    assert all(merged[layer] is initial[layer] for layer in initial.keys() - taken)
    said = capsys.readouterr().out
    assert f"Parameters of {', '.join(sorted(taken))} are those of weights." in said
    assert ("10 classes there, 5 here" in said) == (initial is FIVE and not fields)


def test_merge_names_every_misfit():
    trained = {layer: TEN[layer] for layer in ("C1", "output")} | {
        "C3": {"kernel": np.zeros((3, 3, 6, 16)), "bias": np.zeros(16)}
    }
    with pytest.raises(UserError) as refusal:
        merge(config_of(), trained, FIVE)
    message = str(refusal.value)
    for part in ("C3 is {'kernel': [3, 3, 6, 16]", "C5 is missing there", "F6 is missing there"):
        assert part in message
    assert "C1 is" not in message and "`init_only`" in message


def test_load_initial_params_reads_a_file_for_other_classes(tmp_path, capsys):
    write_weights(tmp_path / "ten.safetensors", to_torch("lenet5", TEN))
    config = TrainConfig(init_from=str(tmp_path / "ten.safetensors"))
    params = load_initial_params(config)(FIVE)
    chex.assert_trees_all_equal(params, {**TEN, "output": FIVE["output"]})
    assert "output (10 classes there, 5 here) start from random values" in capsys.readouterr().out


def test_load_initial_params_reads_pretrained_weights():
    config = TrainConfig(init_from="lenet5-mnist", init_only=("C1",))
    params = load_initial_params(config)(TEN)
    assert np.any(params["C1"]["kernel"] != TEN["C1"]["kernel"]) and params["F6"] is TEN["F6"]


def test_load_initial_params_reads_the_path_that_the_run_records(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_weights(tmp_path / "ten.safetensors", to_torch("lenet5", TEN))
    params = load_initial_params(TrainConfig(init_from="~/ten.safetensors"))(FIVE)
    chex.assert_trees_all_equal(params["C1"], TEN["C1"])
    (tmp_path / "lenet5-mnist").mkdir()  # a folder wins over pretrained weights of that name
    with pytest.raises(UserError, match=f"{tmp_path}/lenet5-mnist holds no run"):
        load_initial_params(TrainConfig(init_from="lenet5-mnist"))(TEN)


def test_load_initial_params_without_a_source_is_none():
    assert load_initial_params(TrainConfig()) is None


def noise(num_classes):
    rng = np.random.default_rng(num_classes)
    images = rng.integers(256, size=(40, 28, 28, 1), dtype=np.uint8)
    labels = rng.integers(num_classes, size=40, dtype=np.int32)
    names = tuple(map(str, range(num_classes)))
    return Dataset("noise", images, labels, images[:20], labels[:20], names)


def final_state(config, dataset):
    experiment = Experiment(config, dataset=dataset)
    with Checkpoints(pathlib.Path(config.workdir) / "checkpoints", config) as checkpoints:
        state, _ = checkpoints.restore(experiment.state, None)
    return jax.device_get(state)


def leaves(state):
    return jax.tree.leaves((state.params, state.opt_state))


@pytest.mark.slow
def test_run_is_fine_tuned_with_frozen_layers_and_resumes_to_the_same_bits(tmp_path):
    pretrain = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        dataset="noise",
        batch_size=20,
        epochs=1,
        workdir=str(tmp_path / "pretrained"),
    )
    train_and_evaluate(pretrain, dataset=noise(10))
    source = final_state(pretrain, noise(10)).params
    config = dataclasses.replace(
        pretrain,
        epochs=2,
        checkpoint_every_steps=1,
        ema_decay=0.9,
        optimizer=OptimizerConfig(learning_rate=0.01, layer_rates=(("output", 10.0),)),
        init_from=str(tmp_path / "pretrained"),
        freeze=("C1", "C3"),
        workdir=str(tmp_path / "tuned"),
    )
    with pytest.raises(UserError, match="pass initial_params=jaxcnn.load_initial_params"):
        train_and_evaluate(config, dataset=noise(5))
    initial_params = load_initial_params(config)
    train_and_evaluate(config, dataset=noise(5), initial_params=initial_params)
    tuned = final_state(config, noise(5))
    for layer in ("C1", "C3"):
        chex.assert_trees_all_equal(tuned.params[layer], source[layer])
        chex.assert_trees_all_equal(tuned.eval_params[layer], source[layer])
    assert np.any(tuned.params["C5"]["kernel"] != source["C5"]["kernel"])
    assert np.any(tuned.eval_params["C5"]["kernel"] != tuned.params["C5"]["kernel"])
    assert tuned.params["output"]["bias"].shape == (5,)

    # As if killed after the first checkpoints; the source is gone.
    (tmp_path / "tuned" / "result.json").unlink()
    shutil.rmtree(tmp_path / "tuned" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "pretrained")
    train_and_evaluate(config, dataset=noise(5), initial_params=initial_params)
    chex.assert_trees_all_equal(leaves(final_state(config, noise(5))), leaves(tuned))


def test_run_with_frozen_layers_is_loaded(tmp_path):
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        **{"dataset": "noise", "batch_size": 20, "epochs": 1, "freeze": ("C1",)},
        workdir=str(tmp_path),
    )
    train_and_evaluate(config, dataset=noise(10))
    state = final_state(config, noise(10))
    chex.assert_trees_all_equal(load_run(tmp_path).params, state.params)
