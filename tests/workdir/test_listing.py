"""Runs below a folder: how far they have come, whatever else lies there."""

import dataclasses
import fcntl
import os
import threading

import pytest
from helpers import write_run

from jaxcnn import PRESETS
from jaxcnn.errors import UserError
from jaxcnn.workdir.listing import list_runs
from jaxcnn.workdir.lock import is_locked, lock

CONFIG = dataclasses.replace(PRESETS["lenet5-mnist5k"].config, epochs=4)


def test_list_runs_tells_how_far_each_has_come(tmp_path):
    for seed in (0, 2, 10):
        write_run(tmp_path / f"seed{seed}", CONFIG, 0.9, finished=seed == 2)
    with lock(tmp_path / "seed10"):
        runs = list_runs([tmp_path])
    assert [run.path.name for run in runs] == ["seed0", "seed2", "seed10"]
    assert [run.state for run in runs] == ["stopped", "finished", "running"]
    assert [(run.step, run.total_steps) for run in runs] == [(124, 248)] * 3
    assert [run.seconds for run in runs] == [None, 90.0, None]
    assert all(run.accuracy() == 0.9 and run.measured_on() == "test" for run in runs)


def test_list_runs_names_the_split_of_an_accuracy(tmp_path):
    write_run(tmp_path / "run", CONFIG, 0.9, finished=False)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 186, "epoch": 3.0, "val_accuracy": 0.8}\n{"step": 187, torn')
    (run,) = list_runs([tmp_path / "run"])
    assert (run.accuracy(), run.measured_on(), run.step) == (0.8, "validation", 186)


def test_list_runs_survives_whatever_lies_beside_a_run(tmp_path):
    write_run(tmp_path / "good", CONFIG, 0.9)
    write_run(tmp_path / "result", CONFIG, 0.9)
    (tmp_path / "result" / "result.json").write_text("{")
    for name, config in (("torn", '{"model"'), ("foreign", '{"name": "a tool"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(config)
    (tmp_path / "checkpoints-only" / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    os.mkfifo(tmp_path / "empty" / "config.json")
    os.mkfifo(tmp_path / "empty" / ".lock")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "good")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("text")
    found = {run.path.name: run for run in list_runs([tmp_path])}
    states = {name: run.state for name, run in found.items()}
    damaged = dict.fromkeys(["result", "torn", "foreign", "checkpoints-only"], "damaged")
    assert states == damaged | {"good": "finished"}  # once, and not under the name of a link
    assert found["checkpoints-only"].step == 7
    assert all(run.problem for run in found.values() if run.state == "damaged")


@pytest.mark.parametrize(
    ("name", "problem"), [("empty", "contains no run"), ("file", "is no folder"), ("x", "does not")]
)
def test_list_runs_refuses_a_folder_without_runs(name, problem, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"{name} {problem}.*; expected the folder of a run"):
        list_runs([tmp_path / name])


def test_is_locked_does_not_keep_a_run_from_starting(tmp_path):
    with lock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path) and not is_locked(tmp_path / "nowhere")
    looking = (tmp_path / ".lock").open()
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `is_locked` does for a moment
    threading.Timer(0.05, looking.close).start()
    with lock(tmp_path):
        assert looking.closed
