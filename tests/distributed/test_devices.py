"""One device or many: the same curve and parameters, and only the gradients travel."""

import collections
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
from helpers import run_script, start_script
from on_devices import CASES

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.config import OptimizerConfig
from jaxcnn.models import MODELS
from jaxcnn.workdir.metrics_log import read_metrics

# Two devices in one process are tested by default: see test_device_loops and test_experiment.
pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent
MANY = [(name, n) for name, case in CASES.items() for n in case[-1] if n > 1]
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast)(?:-start)?\("
)


def train_on(num_devices, folder, *names):
    # LLVM's optimizations are most of the time that this takes.
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, HERE.parent / "on_devices.py", str(num_devices), folder, *names]
    subprocess.run(command, env=environment, check=True)


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory):
    """The files of on_devices.py for the cases selected, from one process per number of devices."""
    folder = tmp_path_factory.mktemp("devices")
    needed = {1: set(), 2: set(), 8: set()}
    for item in request.session.items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if item.path == request.path and (params.get("name"), params.get("num_devices")) in MANY:
            needed[params["num_devices"]].add(params["name"])
            needed[1].add(params["name"].removesuffix("-split"))
    for num_devices, names in needed.items():
        if names:
            train_on(num_devices, folder, *sorted(names))
    return folder


def facts_and_params(folder, name, num_devices):
    path = folder / f"{name}-{num_devices}"
    with np.load(path.with_suffix(".npz")) as arrays:
        return json.loads(path.with_suffix(".json").read_text()), dict(arrays)


def collectives(folder, name, num_devices):
    """Count the arrays that go through each kind of collective in a step."""
    arrays = collections.Counter()
    for shapes, kind in COLLECTIVE.findall((folder / f"{name}-{num_devices}.hlo").read_text()):
        arrays[kind] += shapes.count("[")
    return arrays


@pytest.mark.parametrize(("name", "num_devices"), MANY)
def test_devices_train_as_one_does(name, num_devices, folder, bias_tolerance=1e-5):
    actual, params = facts_and_params(folder, name, num_devices)
    expected, expected_params = facts_and_params(folder, name.removesuffix("-split"), 1)
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-5)
    for leaf, expected_leaf in expected_params.items():
        tolerance = bias_tolerance if "bias" in leaf else 1e-5
        atol = tolerance * np.abs(expected_leaf).max()
        np.testing.assert_allclose(params[leaf], expected_leaf, rtol=0, atol=atol, err_msg=leaf)


UNEQUAL = pytest.mark.xfail(strict=True, reason="conv1's bias differs by 1.3e-4 on 8 devices")


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=UNEQUAL) if m == "cuda-convnet-13pct" else m for m in MODELS],
)
def test_devices_train_every_model_as_one_does(model, tmp_path):
    train_on(1, tmp_path, model)
    for num_devices in (2, 4, 8):
        train_on(num_devices, tmp_path, model)
        # A bias starts at 0 and is updates alone: with AlexNet's large maps sums of 96,800 numbers
        # that nearly cancel, in which a maximum that rounding decided shows.
        tolerance = 1e-2 if model in ("alexnet", "alexnet-2012") else 1e-5
        test_devices_train_as_one_does(model, num_devices, tmp_path, tolerance)


@pytest.mark.parametrize(("name", "num_devices"), [case for case in MANY if "split" not in case[0]])
def test_devices_exchange_gradients_and_metrics_once(name, num_devices, folder):
    facts, params = facts_and_params(folder, name, num_devices)
    assert facts["num_split"] == 0  # parameters and optimizer state stay whole
    number = 1  # all gradients and metrics at once
    if name == "alexnet-32":  # with dropout in this case, so that XLA partitions its step
        # The sums of losses and of correct answers, and a condition for each of three pools.
        number = len(params) + 2 + 3
    assert collectives(folder, name, num_devices) == {"all-reduce": number}


@pytest.mark.parametrize(("name", "num_devices"), [("alexnet-32-split", 8)])
def test_devices_keep_the_gradients_of_split_layers(name, num_devices, folder):
    facts, _ = facts_and_params(folder, name, num_devices)
    assert facts["num_split"] == 2 * 3  # fc6's kernel and bias and fc7's kernel; their momentum
    text = (folder / f"{name}-{num_devices}.hlo").read_text()
    travels = {
        tuple(sorted(map(int, sizes.split(","))))
        for shapes, _ in COLLECTIVE.findall(text)
        for sizes in re.findall(r"f32\[([\d,]+)\]", shapes)
    }  # a gradient may be transposed
    assert {(128, 2048), (128, 512)} <= travels  # over `data`, each device's quarter
    assert not {(512, 2048), (512, 512)} & travels


@pytest.mark.parametrize("num_devices", [1, 2])
def test_devices_continue_from_a_checkpoint_of_8(num_devices, tmp_path):
    config = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config,
        optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
        epochs=2,
        log_every_steps=10,
        checkpoint_every_steps=10,
    )
    folder, undisturbed = tmp_path / "stopped", tmp_path / "undisturbed"
    options = [
        *("--workdir", folder, "--optimizer.name", "sgd", "--optimizer.learning-rate", 0.1),
        *("--optimizer.schedule", "constant", "--epochs", 2),
        *("--log-every-steps", 10, "--checkpoint-every-steps", 10),
    ]
    process = start_script("train.py", *options, JAX_NUM_CPU_DEVICES="8")
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM

    if num_devices == 1:
        done = run_script("train.py", *options, JAX_NUM_CPU_DEVICES="1")
        assert done.returncode == 0, done.stderr
    else:  # this process has two
        train_and_evaluate(dataclasses.replace(config, workdir=str(folder)))
    train_and_evaluate(dataclasses.replace(config, workdir=str(undisturbed)))
    chex.assert_trees_all_close(read_metrics(folder), read_metrics(undisturbed), rtol=1e-5)
