"""Whole commands: the notebook's job, and the time to an accuracy."""

import io
import sys

import numpy as np
import pytest
from rich.console import Console

from jaxcnn.benchmarks import notebook_job
from jaxcnn.benchmarks.whole_runs import measure_accuracy, measure_notebook, print_runs
from jaxcnn.config import to_json
from jaxcnn.data import datasets
from jaxcnn.errors import RunError
from jaxcnn.presets import PRESETS

TRAIN = """
import json, os, pathlib, sys
cache = pathlib.Path(os.environ["JAXCNN_CACHE_DIR"])
assert (cache / "datasets").is_dir() and "--epochs" in sys.argv
warm = (cache / "program").exists()
(cache / "program").touch()
folder = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
seed = int(sys.argv[sys.argv.index("--seed") + 1])
folder.mkdir()
(folder / "config.json").write_text(os.environ["CONFIG"])
(folder / "result.json").write_text(json.dumps({"test_accuracy": (50 + 10 * warm + seed) / 100}))
"""


def test_measure_accuracy_starts_each_seed_without_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CONFIG", to_json(PRESETS["lenet5-mnist5k"].config))
    monkeypatch.setattr(datasets, "load", lambda name: None)
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    command, flags = (sys.executable, str(script)), ("--epochs", "1")
    options = {"rounds": 2, "say": lambda line: None}
    runs = measure_accuracy(command, "lenet5-mnist5k", flags, **options)["runs"]
    assert [*runs] == ["empty cache", "warm cache"]  # PyTorch's side has no lenet5-tanh
    assert [run["accuracy"] for run in runs["empty cache"]] == [0.5, 0.51]
    assert [run["accuracy"] for run in runs["warm cache"]] == [0.6, 0.61]
    assert all(0 < run["seconds"] < 60 for each in runs.values() for run in each)

    script.write_text("raise SystemExit('no such recipe')")
    with pytest.raises(RunError, match="exited with status 1, with: no such recipe"):
        measure_accuracy(command, "lenet5-mnist5k", flags, **options)


def test_print_runs_by_hand():
    notebook = [{"seconds": 80.0, "accuracy": 0.97}, {"seconds": 90.0, "accuracy": 0.98}]
    ours = [{"seconds": 8.0, "accuracy": 0.985}, {"seconds": 6.0, "accuracy": 0.99}]
    console = Console(width=110, file=io.StringIO())
    found = {"what": "notebook", "runs": {"the notebook": notebook, "jaxcnn": ours}}
    print_runs(found, console)
    text = console.file.getvalue()
    assert "jaxcnn is 12.5 times as fast as the notebook (10.0 to 15.0)" in text
    row = next(line for line in text.splitlines() if line.strip().startswith("jaxcnn "))
    assert row.split() == "jaxcnn 7.0 6.0 8.0 98.75% 98.50%".split()


def test_notebook_job_trains_and_tests(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).integers(0, 256, (130, 28, 28, 1), np.uint8)
    labels = np.arange(130, dtype=np.int32) % 10
    image, label = notebook_job.Digits(torch, images, labels)[57]
    np.testing.assert_allclose(image[0], images[57, ..., 0] / 127.5 - 1, atol=1e-6)
    assert image.shape == (1, 28, 28) and label == 7
    arrays = {"train_images": images, "train_labels": labels}
    np.savez(tmp_path / "data.npz", **arrays, test_images=images, test_labels=labels)
    notebook_job.main(str(tmp_path / "data.npz"), 2)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10] for line in lines] == ["Epoch 1/2,", "Epoch 2/2,", "Test Accur"]
    assert lines[-1].endswith("%") and 0 < float(lines[-1].split()[-1][:-1]) < 100


@pytest.mark.slow
def test_measure_notebook_runs_both_processes():
    pytest.importorskip("torch")
    command, lines = (sys.executable, "-m", "jaxcnn", "train"), []
    options = {"dataset": "mnist5k", "num_epochs": 1}
    found = measure_notebook(command, rounds=1, say=lines.append, **options)
    assert [*found["runs"]] == ["the notebook", "jaxcnn"] and len(lines) == 2
    assert all(run["accuracy"] > 0.05 for (run,) in found["runs"].values())


@pytest.mark.slow
def test_measure_accuracy_runs_pytorch_with_our_recipe():
    pytest.importorskip("torch")
    command, lines = (sys.executable, "-m", "jaxcnn", "train"), []
    flags = ("--dataset", "mnist5k", "--optimizer.warmup-epochs", "0")
    found = measure_accuracy(command, "lenet5-fast-mnist", flags, rounds=1, say=lines.append)
    assert [*found["runs"]] == ["empty cache", "warm cache", "PyTorch"] and len(lines) == 3
    empty, warm, torch = (run["accuracy"] for (run,) in found["runs"].values())
    assert empty == warm > 0.85 and abs(torch - warm) < 0.05
