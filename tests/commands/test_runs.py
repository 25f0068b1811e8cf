"""`jaxcnn runs` as a user starts it."""

import json
import subprocess
import sys

import pytest
from helpers import write_run

from jaxcnn import PRESETS
from jaxcnn.commands import compare, runs

CONFIG = PRESETS["lenet5-mnist5k"].config


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def start(command, *arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", *arguments])
    command.main()


def test_runs_lists_the_runs_of_this_folder(here, monkeypatch, capsys):
    for command in (runs, compare):
        start(command, monkeypatch=monkeypatch)
        assert "There is no folder runs/ here yet" in capsys.readouterr().out
    start(runs, "--json", monkeypatch=monkeypatch)
    assert json.loads(capsys.readouterr().out) == []
    write_run(here / "runs" / "mine", CONFIG, 0.9)
    start(runs, "--json", monkeypatch=monkeypatch)
    (record,) = json.loads(capsys.readouterr().out)
    assert record["path"] == str(here / "runs" / "mine") and record["state"] == "finished"
    assert record["differs"] == {} and record["accuracy"] == 0.9 and record["step"] == 124


@pytest.mark.parametrize("folder", ["", "\0", "gs://bucket/runs", "~nosuchuser/runs"])
@pytest.mark.parametrize("flags", [(runs,), (runs, "--json"), (compare,)])
def test_runs_refuses_a_folder_that_is_none(folder, flags, monkeypatch, capsys):
    command, *rest = flags
    with pytest.raises(SystemExit) as end:
        start(command, folder, *rest, monkeypatch=monkeypatch)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: the folder of a run is {folder!r}")


@pytest.mark.parametrize(
    ("columns", "words"),
    [("60", "    finished, 90.00%, step 124 of 620, 2 min\n"), ("120", "preset and what differs")],
)
def test_runs_fits_the_terminal_and_needs_no_jax(columns, words, here, monkeypatch):
    write_run(here / "runs" / "lenet5-mnist5k-epochs=2-seed0", CONFIG, 0.9)
    monkeypatch.setenv("COLUMNS", columns)
    command = [sys.executable, "-X", "importtime", "-m", "jaxcnn", "runs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and words in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(columns)
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in modules and not modules & {"jax", "numpy", "matplotlib"}
