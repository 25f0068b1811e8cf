"""Runs that start from a trained network."""

import dataclasses
import os
import pathlib
import shutil
import time

import chex
import jax
import numpy as np
import pytest
from helpers import random_params, run_script, start_script

from jaxcnn import PRESETS, load_initial_params, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError
from jaxcnn.interop.initialize import merge
from jaxcnn.interop.pretrained import load_pretrained
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


def noise(num_classes, shape=(28, 28, 1)):
    rng = np.random.default_rng(num_classes)
    images = rng.integers(256, size=(40, *shape), dtype=np.uint8)
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


def steps_of(*rate_steps, **fields):
    return OptimizerConfig(schedule="steps", rate_steps=rate_steps, **fields)


# On two devices each: the network, the layers that are frozen, and what else is set.
TUNED = {
    "data parallel": ("lenet5", ("C1", "C3"), {}),
    "a split layer": ("alexnet-32", ("conv1", "fc6"), {"model_axis": 2}),
    "streamed": ("lenet5", ("C1", "F6"), {"stream_size": 28, "channels": 1}),
    "accumulated": (
        "lenet5",
        ("C1", "output"),
        {
            "optimizer": steps_of((1, 0.1), (3, 0.01), name="sgd-2012", accumulate=3, clip_norm=1),
            "ema_decay": 0.9,
        },
    ),
    "decayed": (
        "lenet5",
        ("C1",),
        {"optimizer": OptimizerConfig(name="adamw", weight_decay=0.1, decay_biases=True)},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", TUNED)
def test_frozen_layers_keep_their_bits_and_the_run_resumes_to_its_own(case, image_folder, tmp_path):
    model, frozen, fields = TUNED[case]
    shape = (32, 32, 3) if model == "alexnet-32" else (28, 28, 1)
    source = random_params(MODELS[model](10), shape, seed=1)
    config = TrainConfig(
        model=model,
        dataset=f"folder:{image_folder}" if case == "streamed" else "noise",
        batch_size=10,
        epochs=4,
        checkpoint_every_steps=3,
        init_from="weights",
        freeze=frozen,
        workdir=str(tmp_path / "run"),
    )
    config = dataclasses.replace(config, **fields)
    dataset = None if case == "streamed" else noise(3, shape)
    num_classes = 3

    def initial_params(params):
        return merge(config, source, params)

    train_and_evaluate(config, dataset=dataset, initial_params=initial_params)
    end = final_state(config, dataset)
    head = list(source)[-1]
    for layer, params in end.params.items():
        if layer in frozen and layer != head:
            chex.assert_trees_all_equal(params, source[layer])
        elif layer not in frozen and layer != head:
            assert np.any(params["kernel"] != source[layer]["kernel"]), layer
    assert end.params[head]["bias"].shape == (num_classes,)
    names = {str(path) for path, _ in jax.tree_util.tree_leaves_with_path(end.opt_state)}
    assert not any(layer in name for layer in frozen for name in names)  # no optimizer memory

    (tmp_path / "run" / "result.json").unlink()
    for step in sorted(map(int, os.listdir(tmp_path / "run" / "checkpoints")))[1:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    train_and_evaluate(config, dataset=dataset)
    chex.assert_trees_all_equal(leaves(final_state(config, dataset)), leaves(end))


@pytest.mark.slow
def test_fine_tuning_killed_continues_to_the_same_bits(tmp_path):
    options = "--model lenet5 --init-from lenet5-mnist --freeze C1 C3 --epochs 2 --new-head".split()
    options += ["--checkpoint-every-steps", "10"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_script("train.py", *options, "--workdir", whole).returncode == 0
    process = start_script("train.py", *options, "--workdir", killed)
    while not (killed / "checkpoints" / "70").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert not (killed / "result.json").exists()
    done = run_script("train.py", *options, "--workdir", killed)
    assert done.returncode == 0 and "Going on from the checkpoint of step" in done.stdout
    chex.assert_trees_all_equal(load_run(killed).params, load_run(whole).params)
    chex.assert_trees_all_equal(
        load_run(killed).params["C1"], load_pretrained("lenet5-mnist").params["C1"]
    )
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_run_with_frozen_layers_is_loaded(tmp_path):
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        **{"dataset": "noise", "batch_size": 20, "epochs": 1, "freeze": ("C1",)},
        workdir=str(tmp_path),
    )
    train_and_evaluate(config, dataset=noise(10))
    state = final_state(config, noise(10))
    chex.assert_trees_all_equal(load_run(tmp_path).params, state.params)
