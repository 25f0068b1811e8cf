"""Tables and curves of several runs."""

import dataclasses
import io
import re
import statistics

import pytest
from helpers import run_script, write_run
from rich.console import Console

from jaxcnn import PRESETS, report
from jaxcnn.evaluation.compare import compare_runs, group_by_seed
from jaxcnn.evaluation.runs import label
from jaxcnn.workdir.listing import list_runs

MNIST5K = dataclasses.replace(PRESETS["lenet5-mnist5k"].config, epochs=2)
ACCURACIES = {0: 0.96, 1: 0.97, 2: 0.955}


def replace(config, learning_rate=None, **fields):
    if learning_rate:
        fields["optimizer"] = dataclasses.replace(config.optimizer, learning_rate=learning_rate)
    return dataclasses.replace(config, **fields)


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
    monkeypatch.setattr(report, "console", Console(file=file, width=240, highlight=False))
    return file


def rows(output):
    """Return the cells of each line of the tables, whose cells are two spaces or a line apart."""
    lines = output.getvalue().splitlines()
    return [
        re.split(r" {2,}| *│ *", line.strip(" │")) for line in lines if line.startswith((" /", "│"))
    ]


def test_compare_runs_lists_what_differs(runs, output):
    found = compare_runs([runs])
    assert [run.path for run in found] == [
        *(runs / "seeds" / str(seed) for seed in ACCURACIES),
        *(runs / "slow", runs / "stopped"),
    ]
    cells = {row[0]: row[1:] for row in rows(output)}
    seed1 = ["lenet5-mnist5k epochs=2", "1", "97.00%", "124", "2 min", "finished"]
    assert cells[str(runs / "seeds" / "1")] == seed1
    slow = ["lenet5-mnist5k learning_rate=0.0003 epochs=2", "0", "90.00%", "124", "2 min"]
    assert cells[str(runs / "slow")] == [*slow, "finished"]
    stopped = ["lenet5-mnist5k epochs=40", "0", "93.00%", "124 of 2,480", "stopped"]
    assert cells[str(runs / "stopped")] == stopped


def test_compare_runs_prints_mean_and_spread_over_seeds(runs, output):
    compare_runs([runs])
    mean, spread = (f([*ACCURACIES.values()]) for f in (statistics.mean, statistics.stdev))
    summary = f"{100 * mean:.2f} ± {100 * spread:.2f}%"
    assert rows(output)[-1] == ["lenet5-mnist5k epochs=2", "0 1 2", summary, "95.50%", "97.00%"]


def test_compare_runs_shows_the_accuracy_on_the_training_set(tmp_path, output):
    for seed, accuracy in ((0, 0.98), (1, 0.99)):
        config = replace(MNIST5K, seed=seed, eval_training=True)
        write_run(tmp_path / str(seed), config, 0.9, train_eval_accuracy=accuracy)
    write_run(tmp_path / "other", MNIST5K, 0.9)
    compare_runs([tmp_path])
    cells = {row[0]: row[1:] for row in rows(output)}
    seed0 = ["lenet5-mnist5k epochs=2 eval_training=True", "0", "90.00%", "98.00%", "124"]
    assert cells[str(tmp_path / "0")] == [*seed0, "2 min", "finished"]
    assert rows(output)[-1][-1] == "98.50 ± 0.71%"


def test_compare_runs_draws_the_curves_of_each_run(runs, output):
    compare_runs([runs / "slow"], figure=runs / "curves.png")
    assert (runs / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_group_by_seed_separates_other_configs(runs):
    groups = group_by_seed(list_runs([runs]))
    assert [len(group) for group in groups] == [3, 1, 1]


def test_label_compares_a_run_without_preset_with_the_defaults():
    config = replace(MNIST5K, preset="custom", dataset="cifar10", seed=3, workdir="elsewhere")
    assert label(config) == (
        "custom model=lenet5-tanh dataset=cifar10 learning_rate=0.002 epochs=2 eval_every_epochs=2"
    )


def test_compare_script_answers_for_a_folder_without_runs(tmp_path):
    done = run_script("compare.py", tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path} contains no run" in done.stderr
