"""The progress of several runs: bars on a terminal, lines elsewhere."""

import dataclasses
import io

import pytest
from helpers import write_run
from rich.console import Console

from jaxcnn import PRESETS, report
from jaxcnn.evaluation.jobs import Job
from jaxcnn.evaluation.jobs_progress import bars, show_progress
from jaxcnn.workdir.lock import lock

CONFIG = dataclasses.replace(PRESETS["lenet5-mnist5k"].config, epochs=4)


@pytest.fixture
def jobs(tmp_path):
    """Three runs, two of which have come to epoch 2."""
    for seed in (0, 1):
        write_run(tmp_path / str(seed), CONFIG, 0.9, finished=seed == 0)
    configs = [dataclasses.replace(CONFIG, workdir=str(tmp_path / str(i))) for i in range(3)]
    return [Job(f"seed {i}", config) for i, config in enumerate(configs)]


def test_bars_show_the_runs_that_train(jobs, tmp_path):
    console = Console(file=io.StringIO(), width=80)
    with lock(tmp_path / "1"):
        console.print(bars(jobs))
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith("seed 1 ━") and line.rstrip().endswith("epoch 2.0 of 4 loss 0.5000")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_show_progress_prints_lines_of_steps_without_a_terminal(is_terminal, jobs, monkeypatch):
    console = Console(
        file=io.StringIO(), force_terminal=is_terminal, highlight=False, _environ={"TERM": "xterm"}
    )
    monkeypatch.setattr(report, "console", console)
    with show_progress(jobs) as watch:
        watch(jobs[1], "step 10 of 20, epoch 1: loss 0.1")
        watch(jobs[1], "epoch 2: test accuracy 90%")
    assert ("seed 1: step 10" in console.file.getvalue()) == (not is_terminal)
    assert "seed 1: epoch 2: test accuracy 90%" in console.file.getvalue()


def test_show_progress_of_many_runs_prints_their_ends_alone(jobs, monkeypatch):
    console = Console(file=io.StringIO(), highlight=False)
    monkeypatch.setattr(report, "console", console)
    with show_progress(jobs, only_ends=True) as watch:
        watch(jobs[1], "epoch 2: test accuracy 90%")
        for job in jobs:
            watch(job, "finished")
    first, _, last = console.file.getvalue().splitlines()
    assert first == "seed 0: finished, 1 of 3 runs, about 0 s left"
    assert last == "seed 2: finished, 3 of 3 runs"
