"""The seconds from a command to its answer, and to the first training step."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.errors import RunError, UserError

POLL_SECONDS = 0.005


def measure_startup(
    train_command: Sequence[str], network: str, *, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Start `train.py` repeatedly, after a first start that fills the caches.

    Args:
      train_command: words of the command that trains.
      network: name in MODELS of a network for MNIST's images.
      rounds: number of starts of each command.
      say: function that prints a progress line.

    Returns:
      The arguments, and `seconds`: command -> one value per round.

    Raises:
      UserError: `rounds` is below 1.
      RunError: the training did not reach its first step.
    """
    if rounds < 1:
        raise UserError(f"`rounds` is {rounds}; expected at least 1; give a larger number")
    say("filling the caches")
    _to_first_step(train_command, network)
    seconds: dict[str, list[float]] = {"--help": [], "first step": []}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        started = time.perf_counter()
        subprocess.run([*train_command, "--help"], check=True, stdout=subprocess.DEVNULL)
        seconds["--help"].append(time.perf_counter() - started)
        seconds["first step"].append(_to_first_step(train_command, network))
    return {
        "network": network,
        "what": "startup",
        "python": sys.version.split()[0],
        "cpu_count": os.cpu_count(),
        "seconds": seconds,
    }


def print_startup(measured: dict[str, Any], console: Console) -> None:
    """Print the medians as a table."""
    table = Table("train.py", title=f"{measured['network']}, startup", box=box.SIMPLE_HEAD)
    for heading in ("seconds", "least", "largest"):
        table.add_column(heading, justify="right")
    for command, seconds in measured["seconds"].items():
        figures = (median(seconds), min(seconds), max(seconds))
        table.add_row(command, *(f"{figure:.2f}" for figure in figures))
    console.print(table)


def _to_first_step(train_command: Sequence[str], network: str) -> float:
    """Return the seconds from the command until the first step is in the log."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
        log = Path(folder, "run", "metrics.jsonl")
        started = time.perf_counter()
        process = subprocess.Popen(
            [
                *(*train_command, "lenet5-mnist5k", "--model", network),
                *("--epochs", "1", "--log-every-steps", "1", "--workdir", log.parent),
            ],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while not (log.exists() and log.stat().st_size):
                if process.poll() is not None:
                    errors.seek(0)
                    last = (errors.read().strip().splitlines() or ["no message"])[-1]
                    raise RunError(
                        f"train.py exited with status {process.returncode} before its first step, "
                        f"with: {last}"
                    )
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()
