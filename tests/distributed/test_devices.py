"""One device or many: the same curve and parameters, and only the gradients travel."""

import collections
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest
from on_devices import CASES

from jaxcnn.models import MODELS
from jaxcnn.workdir.metrics_log import read_metrics

HERE = pathlib.Path(__file__).parent
MANY = [(name, n) for name, case in CASES.items() for n in case[-1] if n > 1]
COLLECTIVE = re.compile(
    r"= (\S.*?) (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    r"|collective-broadcast)(?:-start)?\("
)


def train_on(num_devices, folder, *model):
    # LLVM's optimizations are most of the time that this takes.
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    command = [sys.executable, HERE.parent / "on_devices.py", str(num_devices), folder, *model]
    subprocess.run(command, env=environment, check=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What on_devices.py leaves, from a process for each number of devices."""
    folder = tmp_path_factory.mktemp("devices")
    for num_devices in (1, 2, 8):
        train_on(num_devices, folder)
    return folder


def facts_and_params(folder, name, num_devices):
    path = folder / f"{name}-{num_devices}"
    with np.load(path.with_suffix(".npz")) as arrays:
        return json.loads(path.with_suffix(".json").read_text()), dict(arrays)


def collectives(folder, name, num_devices):
    """How many arrays go through each kind of collective in a step."""
    arrays = collections.Counter()
    for shapes, kind in COLLECTIVE.findall((folder / f"{name}-{num_devices}.hlo").read_text()):
        arrays[kind] += shapes.count("[")
    return arrays


@pytest.mark.parametrize(("name", "num_devices"), MANY)
def test_many_devices_train_as_one_does(name, num_devices, folder, bias_tolerance=1e-5):
    actual, params = facts_and_params(folder, name, num_devices)
    expected, expected_params = facts_and_params(folder, name.removesuffix("-split"), 1)
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-5)
    for leaf, expected_leaf in expected_params.items():
        tolerance = bias_tolerance if "bias" in leaf else 1e-5
        atol = tolerance * np.abs(expected_leaf).max()
        np.testing.assert_allclose(params[leaf], expected_leaf, rtol=0, atol=atol, err_msg=leaf)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_every_model_trains_the_same_on_any_number_of_devices(model, tmp_path):
    train_on(1, tmp_path, model)
    for num_devices in (2, 4, 8):
        train_on(num_devices, tmp_path, model)
        # A bias starts at 0 and is updates alone: with AlexNet's large maps sums of 96,800 numbers
        # that nearly cancel, in which a maximum that rounding decided shows.
        tolerance = 1e-2 if model in ("alexnet", "alexnet-2012") else 1e-5
        test_many_devices_train_as_one_does(model, num_devices, tmp_path, tolerance)


@pytest.mark.parametrize(("name", "num_devices"), [case for case in MANY if "split" not in case[0]])
def test_only_gradients_and_metrics_travel_and_once(name, num_devices, folder):
    facts, params = facts_and_params(folder, name, num_devices)
    assert facts["num_split"] == 0  # parameters and optimizer state stay whole
    expected = {"all-reduce": len(params) + 2}  # the sums of losses and of correct answers
    if name == "cuda-convnet-11pct":
        # XLA's partitioner gathers what its local layers see, a convolution in groups that is
        # inside nn.ConvLocal (openxla/xla#47945).
        expected["all-gather"] = 2
    assert collectives(folder, name, num_devices) == expected


def test_split_layers_are_split_and_their_gradients_stay(folder):
    facts, _ = facts_and_params(folder, "alexnet-32-split", 8)
    assert facts["num_split"] == 2 * 3  # fc6's kernel and bias and fc7's kernel; their momentum
    text = (folder / "alexnet-32-split-8.hlo").read_text()
    travels = {
        tuple(sorted(map(int, sizes.split(","))))
        for shapes, _ in COLLECTIVE.findall(text)
        for sizes in re.findall(r"f32\[([\d,]+)\]", shapes)
    }  # a gradient may be transposed
    assert {(128, 2048), (128, 512)} <= travels  # over `data`, each device's quarter
    assert not {(512, 2048), (512, 512)} & travels


def start(num_devices, folder):
    return subprocess.Popen(
        [sys.executable, HERE.parents[1] / "scripts" / "train.py", "--workdir", folder]
        + "--optimizer.name sgd --optimizer.learning-rate 0.1 --optimizer.schedule constant".split()
        + "--epochs 2 --log-every-steps 10 --checkpoint-every-steps 10".split(),
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(num_devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def test_a_checkpoint_of_any_number_of_devices_goes_on_with_any_other(tmp_path):
    folders = [tmp_path / name for name in ("undisturbed", "from-8-to-1", "from-8-to-2")]
    undisturbed, stopped = start(1, folders[0]), start(8, folders[1])
    while not (folders[1] / "metrics.jsonl").exists():
        assert stopped.poll() is None, stopped.stderr.read()
        time.sleep(0.01)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + signal.SIGTERM
    shutil.copytree(folders[1], folders[2])
    finish(undisturbed)
    one, two = start(1, folders[1]), start(2, folders[2])
    assert all("Going on from the checkpoint" in finish(process) for process in (one, two))
    expected, *others = (read_metrics(folder) for folder in folders)
    for metrics in others:
        chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
