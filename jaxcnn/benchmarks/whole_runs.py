"""The seconds of whole commands that train: the notebook's job, and the time to an accuracy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn import config as configs
from jaxcnn.benchmarks import torch_job
from jaxcnn.data import datasets
from jaxcnn.errors import RunError
from jaxcnn.files import cache_dir
from jaxcnn.presets import PRESETS

Runs = dict[str, list[dict[str, float]]]  # side -> "seconds" and "accuracy" of each round


def measure_notebook(
    train_command: Sequence[str],
    flags: Sequence[str] = (),
    *,
    rounds: int,
    say: Callable[[str], None],
    dataset: str = "mnist",
    num_epochs: int = 10,
) -> dict[str, Any]:
    """Run the notebook's own job and `lenet5-mnist`, in alternation, as whole processes.

    Args:
      train_command: words of the command that trains.
      flags: further words, after the preset.
      rounds: number of runs of each side.
      say: function that prints a progress line.
      dataset: dataset of both sides.
      num_epochs: number of epochs of both sides.

    Returns:
      The arguments, and `runs`: side -> seconds and test accuracy of each round.

    Raises:
      UserError: the dataset cannot be loaded.
      RunError: a process failed.
    """
    runs: Runs = {"the notebook": [], "jaxcnn": []}
    with tempfile.TemporaryDirectory() as folder:
        file = _save_arrays(dataset, Path(folder))
        notebook = (sys.executable, "-m", "jaxcnn.benchmarks.notebook_job", file, str(num_epochs))
        ours = (*train_command, "lenet5-mnist", "--dataset", dataset, "--epochs", str(num_epochs))
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: the notebook")
            runs["the notebook"].append(_run_torch(notebook))
            say(f"round {number + 1} of {rounds}: jaxcnn")
            runs["jaxcnn"].append(_train((*ours, *flags), Path(folder, f"run{number}"), {}))
    return {"what": "notebook", "dataset": dataset, "epochs": num_epochs, "runs": runs}


def measure_accuracy(
    train_command: Sequence[str],
    preset: str,
    flags: Sequence[str] = (),
    *,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train with seeds 0, 1, ..., each without compiled programs in the cache, and then with them.

    PyTorch trains with each seed, too, if it is installed and `torch_job` supports the recipe.

    Args:
      train_command: words of the command that trains.
      preset: name of the preset.
      flags: further words, after the preset: the recipe.
      rounds: number of seeds.
      say: function that prints a progress line.

    Returns:
      The arguments, and `runs`: "empty cache", "warm cache", "PyTorch" -> seconds from the command
      to its end, and test accuracy, of each seed.

    Raises:
      UserError: the preset's dataset cannot be loaded.
      RunError: a process failed.
    """
    datasets.load(PRESETS[preset].config.dataset)  # so that every run finds it prepared
    runs: Runs = {"empty cache": [], "warm cache": []}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(rounds):
            cache = Path(folder, f"cache{seed}")
            cache.mkdir()
            (cache / "datasets").symlink_to(cache_dir("datasets"))
            command = (*train_command, preset, *flags, "--seed", str(seed))
            for side in ("empty cache", "warm cache"):
                say(f"seed {seed} of {rounds - 1}: {side}")
                run = Path(folder, f"{side} {seed}")
                runs[side].append(_train(command, run, {"JAXCNN_CACHE_DIR": str(cache)}))
            config = configs.from_json((run / "config.json").read_text())
            if find_spec("torch") and torch_job.supports(config):
                say(f"seed {seed} of {rounds - 1}: PyTorch")
                arrays = _save_arrays(config.dataset, Path(folder))
                job = (sys.executable, "-m", torch_job.__name__, run / "config.json", arrays)
                runs.setdefault("PyTorch", []).append(_run_torch(job))
    return {"what": "accuracy", "preset": preset, "flags": [*flags], "runs": runs}


def print_runs(measured: dict[str, Any], console: Console) -> None:
    """Print medians of the seconds and means of the accuracies, as a table."""
    runs: Runs = measured["runs"]
    title = f"{measured['what']}: whole commands"
    table = Table("", title=title, box=box.SIMPLE_HEAD)
    for heading in ("seconds", "least", "largest", "mean accuracy", "least accuracy"):
        table.add_column(heading, justify="right")
    for side, each in runs.items():
        seconds = [run["seconds"] for run in each]
        accuracies = [run["accuracy"] for run in each]
        table.add_row(
            side,
            *(f"{figure:.1f}" for figure in (median(seconds), min(seconds), max(seconds))),
            *(f"{figure:.2%}" for figure in (mean(accuracies), min(accuracies))),
        )
    console.print(table)
    for theirs, ours in (("the notebook", "jaxcnn"), ("PyTorch", "warm cache")):
        if theirs in runs:
            pairs = zip(runs[theirs], runs[ours], strict=True)
            ratios = [their["seconds"] / our["seconds"] for their, our in pairs]
            console.print(
                f"jaxcnn is {median(ratios):.1f} times as fast as {theirs} ({min(ratios):.1f} to "
                f"{max(ratios):.1f}), from the command to the test accuracy."
            )


def _save_arrays(dataset: str, folder: Path) -> Path:
    """Save the arrays of a dataset, if they are not saved, and return the file."""
    file = folder / "data.npz"
    if not file.exists():
        loaded = datasets.load(dataset)
        names = ("train_images", "train_labels", "test_images", "test_labels")
        np.savez(file, **{name: getattr(loaded, name) for name in names})
    return file


def _run_torch(command: Sequence[str | Path]) -> dict[str, float]:
    seconds, said = _timed(command, {})
    found = re.search(r"Test Accuracy: ([\d.]+)%", said)
    assert found is not None, said
    return {"seconds": seconds, "accuracy": float(found[1]) / 100}


def _train(command: Sequence[str], run: Path, environment: Mapping[str, str]) -> dict[str, float]:
    seconds, _ = _timed((*command, "--workdir", run), environment)
    result = json.loads((run / "result.json").read_text())
    return {"seconds": seconds, "accuracy": result["test_accuracy"]}


def _timed(command: Sequence[str | Path], environment: Mapping[str, str]) -> tuple[float, str]:
    """Return the seconds of a process from its start to its end, and its output."""
    started = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RunError(f"a command exited with status {done.returncode}, with: {last}")
    return seconds, done.stdout
