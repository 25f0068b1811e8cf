"""Several seeds from one command."""

import dataclasses
import json
import signal
import time

import pytest
from helpers import run_script, start_script

from jaxcnn import PRESETS
from jaxcnn.errors import UserError
from jaxcnn.evaluation.seeds import train_seeds
from jaxcnn.workdir.lock import is_locked

MNIST5K = PRESETS["lenet5-mnist5k"].config


@pytest.mark.parametrize(
    ("fields", "seeds", "message"),
    [
        ({}, (0, 1, 0), "`seeds` are 0 1 0; expected each once"),
        ({}, (0, -1), "seed.*-1"),
        ({"model_axis": 2}, (0, 1), "start each seed by itself"),
    ],
)
def test_train_seeds_refuses_before_anything_starts(fields, seeds, message, tmp_path):
    config = dataclasses.replace(MNIST5K, workdir=str(tmp_path / "runs"), **fields)
    with pytest.raises(UserError, match=message):
        train_seeds(config, seeds)
    assert not (tmp_path / "runs").exists()


def accuracies(folder):
    results = (json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json")))
    return [result["test_accuracy"] for result in results]


@pytest.mark.slow
def test_seeds_train_as_each_by_itself(tmp_path):
    done = run_script("train.py", "--epochs", 2, "--workdir", tmp_path, "--seeds", 1, 5)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"seed1", "seed5"}
    alone = tmp_path / "alone" / "5"
    assert run_script("train.py", "--epochs", 2, "--seed", 5, "--workdir", alone).returncode == 0
    assert accuracies(tmp_path)[1] == pytest.approx(accuracies(tmp_path / "alone")[0], abs=0.002)
    assert f"{100 * sum(accuracies(tmp_path)) / 2:.2f} ± " in done.stdout


@pytest.mark.slow
def test_seeds_stop_on_a_signal_and_continue(tmp_path):
    command = ["train.py", "--epochs", 12, "--workdir", tmp_path, "--seeds", 0, 1]
    process = start_script(*command)
    while len(list(tmp_path.glob("*/metrics.jsonl"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == (
        "error: stopped by SIGTERM; the same command continues from the checkpoints\n"
    )
    assert not list(tmp_path.glob("*/result.json"))
    done = run_script(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Going on from the checkpoint") == 2
    assert min(accuracies(tmp_path)) > 0.9


@pytest.mark.slow
def test_seeds_save_and_stop_when_their_parent_is_killed(tmp_path):
    lengths = ["--epochs", 9999, "--eval-every-epochs", 9999]  # no line of output in hours
    process = start_script("train.py", *lengths, "--workdir", tmp_path, "--seeds", 0, 1)
    while len(list(tmp_path.glob("*/metrics.jsonl"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.kill()
    process.communicate()
    folders = list(tmp_path.iterdir())
    deadline = time.monotonic() + 600
    while any(map(is_locked, folders)):
        assert time.monotonic() < deadline, "the runs go on"
        time.sleep(0.1)
    assert all(list(folder.glob("checkpoints/*")) for folder in folders)


@pytest.mark.slow
def test_seeds_name_the_one_that_failed(tmp_path):
    run_script("train.py", "--epochs", 1, "--workdir", tmp_path / "seed1")  # of seed 0
    done = run_script("train.py", "--epochs", 1, "--workdir", tmp_path, "--seeds", 0, 1)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: seed 1: ") and "seed is 0 there and 1" in done.stderr
    assert len(accuracies(tmp_path)) == 2  # seed 0 is finished all the same


@pytest.mark.slow
def test_seeds_continue_to_a_greater_length(tmp_path):
    command = ["train.py", "--workdir", tmp_path, "--seeds", 0, 1, "--epochs"]
    assert run_script(*command, 1).returncode == 0
    done = run_script(*command, 2, "--continue")
    assert done.returncode == 0, done.stderr
    results = [
        json.loads((tmp_path / f"seed{seed}" / "result.json").read_text()) for seed in (0, 1)
    ]
    assert [(r["epochs"], r["continued_from"]) for r in results] == [(2, [1])] * 2
