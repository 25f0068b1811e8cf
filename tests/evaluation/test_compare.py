"""Tables and curves of several runs."""

import dataclasses
import io
import json
import statistics

import pytest
from helpers import run_script
from rich.console import Console

from jaxcnn import PRESETS, report
from jaxcnn.config import to_json
from jaxcnn.errors import UserError
from jaxcnn.evaluation.compare import compare_runs, find_runs, group_by_seed, label

MNIST5K = PRESETS["lenet5-mnist5k"].config
RESULT = {
    **{"preset": "lenet5-mnist5k", "model": "lenet5-tanh", "num_parameters": 61_706},
    **{"dataset": "mnist5k", "epochs": 2, "steps": 124, "test_loss": 0.1},
    **{"num_test_examples": 1000, "train_seconds": 80.0, "compile_seconds": 2.0},
    **{"examples_per_second": 100.0, "total_seconds": 90.0, "devices": [], "versions": {}},
}
ACCURACIES = {0: 0.96, 1: 0.97, 2: 0.955}


def replace(config, learning_rate=None, **fields):
    if learning_rate:
        fields["optimizer"] = dataclasses.replace(config.optimizer, learning_rate=learning_rate)
    return dataclasses.replace(config, **fields)


def write_run(folder, config, accuracy, *, finished=True):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(to_json(config))
    lines = [
        {"step": 31, "epoch": 0.5, "train_loss": 2.0},
        {"step": 62, "epoch": 1.0, "train_loss": 1.0, "test_accuracy": accuracy - 0.1},
        {"step": 124, "epoch": 2.0, "train_loss": 0.5, "test_accuracy": accuracy},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        result = RESULT | {"test_accuracy": accuracy, "seed": config.seed}
        (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def runs(tmp_path):
    """A folder of three seeds, one other run, and one that is not finished."""
    for seed, accuracy in ACCURACIES.items():
        write_run(tmp_path / "seeds" / str(seed), replace(MNIST5K, seed=seed), accuracy)
    write_run(tmp_path / "slow", replace(MNIST5K, learning_rate=3e-4), 0.9)
    write_run(tmp_path / "stopped", replace(MNIST5K, epochs=40), 0.93, finished=False)
    return tmp_path


@pytest.fixture
def output(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(report, "console", Console(file=file, width=160, highlight=False))
    return file


def rows(output):
    """Return the cells of each line of the tables."""
    lines = output.getvalue().splitlines()
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]


def test_compare_runs_lists_what_differs(runs, output):
    found = compare_runs([runs])
    assert [run.path for run in found] == [
        *(runs / "seeds" / str(seed) for seed in ACCURACIES),
        *(runs / "slow", runs / "stopped"),
    ]
    cells = {row[0]: row[1:] for row in rows(output)}
    assert cells[str(runs / "seeds" / "1")] == ["lenet5-mnist5k", "1", "10", "97.00%", "1.5"]
    slow = ["lenet5-mnist5k learning_rate=0.0003", "0", "10", "90.00%", "1.5"]
    assert cells[str(runs / "slow")] == slow
    stopped = ["lenet5-mnist5k epochs=40", "0", "2 of 40", "93.00%", ""]
    assert cells[str(runs / "stopped")] == stopped


def test_compare_runs_prints_mean_and_spread_over_seeds(runs, output):
    compare_runs([runs])
    mean, spread = (f([*ACCURACIES.values()]) for f in (statistics.mean, statistics.stdev))
    summary = f"{100 * mean:.2f} ± {100 * spread:.2f}%"
    assert rows(output)[-1] == ["lenet5-mnist5k", "0 1 2", summary, "95.50%", "97.00%"]


def test_compare_runs_draws_the_curves_of_each_run(runs, output):
    compare_runs([runs / "slow"], figure=runs / "curves.png")
    assert (runs / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_find_runs_names_a_folder_without_runs(runs):
    (runs / "empty").mkdir()
    with pytest.raises(UserError, match="empty contains no run; expected a folder with a config"):
        find_runs([runs / "slow", runs / "empty"])


def test_find_runs_lists_each_run_once(runs):
    assert len(find_runs([runs / "slow", runs, runs / "slow"])) == 5


def test_group_by_seed_separates_other_configs(runs):
    groups = group_by_seed(find_runs([runs]))
    assert [len(group) for group in groups] == [3, 1, 1]


def test_label_compares_a_run_without_preset_with_the_defaults():
    config = replace(MNIST5K, preset="custom", dataset="cifar10", seed=3, workdir="elsewhere")
    assert label(config) == (
        "custom model=lenet5-tanh dataset=cifar10 learning_rate=0.002 eval_every_epochs=2"
    )


def test_compare_script_answers_for_a_folder_without_runs(tmp_path):
    done = run_script("compare.py", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path} contains no run" in done.stderr
