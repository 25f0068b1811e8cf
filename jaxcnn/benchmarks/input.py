"""How fast images reach a training step, and how fast the step uses them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import jax
from flax import linen as nn
from rich import box
from rich.console import Console
from rich.table import Table

from jaxcnn.benchmarks.compare import check_turns
from jaxcnn.benchmarks.table import short
from jaxcnn.config import TrainConfig
from jaxcnn.training.experiment import Experiment


class MeanColor(nn.Module):
    """A network of negligible cost, so that the input alone limits the speed of a step."""

    num_classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Return logits computed from the mean of each channel."""
        return nn.Dense(self.num_classes)(images.mean((1, 2)))


def measure_input(
    config: TrainConfig, *, rounds: int, seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Train a config and, alternating with it, a network of negligible cost on the same images.

    Args:
      config: config of a run; nothing is written into its folder.
      rounds: number of turns of each network.
      seconds: shortest duration of a turn.
      say: function that prints a progress line.

    Returns:
      The arguments, and `images_per_second`: "training" and "input alone" -> one value per round.

    Raises:
      UserError: the config is invalid, its data cannot be read, or `rounds` or `seconds` is out of
        range.
    """
    check_turns(rounds, seconds)
    plain = dataclasses.replace(config.optimizer, name="sgd")  # `diagonal-lm` needs its own network
    alone = dataclasses.replace(config, model="mean-color", dtype="float32", optimizer=plain)
    training = Experiment(config)
    mean_color = MeanColor(len(training.dataset.class_names))
    sides = {
        "training": _Side(training),
        "input alone": _Side(Experiment(alone, model=mean_color)),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-1, rounds):  # the first turn warms up
        if number >= 0:
            say(f"round {number + 1} of {rounds}")
        for name, side in sides.items():
            rate = side.images_per_second(seconds)
            if number >= 0:
                found[name].append(rate)
    return {
        "network": config.model,
        "what": "input",
        "preset": config.preset,
        "dataset": config.dataset,
        "batch_size": config.batch_size,
        "device": jax.devices()[0].device_kind,
        "images_per_second": found,
    }


def print_input(measured: dict[str, Any], console: Console) -> None:
    """Print the medians as a table."""
    title = "{preset}, {dataset}, batch {batch_size}: images/s".format_map(measured)
    table = Table("", title=title, box=box.SIMPLE_HEAD)
    for heading in ("median", "least", "largest"):
        table.add_column(heading, justify="right")
    rates = measured["images_per_second"]
    for name, each in rates.items():
        table.add_row(name, *(short(figure) for figure in (median(each), min(each), max(each))))
    console.print(table)
    pairs = zip(rates["input alone"], rates["training"], strict=True)
    ratio = median(alone / training for alone, training in pairs)
    console.print(f"The input alone is {short(ratio)} times as fast as training.")


class _Side:
    """A run that is continued in each turn."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._experiment.compile()
        self._state, self._metrics = self._experiment.state, self._experiment.no_metrics()
        self._step, self._chunk = 0, 1

    def images_per_second(self, seconds: float) -> float:
        """Return the rate of a turn; reading ahead stops at its end."""
        experiment, first, took = self._experiment, self._step, 0.0
        started = time.perf_counter()
        while took < seconds:
            in_epoch = self._step % experiment.steps_per_epoch
            if in_epoch == 0:
                self._state = experiment.begin_epoch(self._state)
            stop = self._step + min(self._chunk, experiment.steps_per_epoch - in_epoch)
            self._state, self._metrics = experiment.train(self._state, self._metrics, stop)
            self._step = int(self._state.step)  # waits for the device
            took = time.perf_counter() - started
            self._chunk = max(1, int((self._step - first) / took * seconds / 4))
        experiment.close()
        return (self._step - first) * experiment.config.batch_size / took
