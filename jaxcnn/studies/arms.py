"""Configs of the arms of studies: a preset's, with other fields."""

import dataclasses

from jaxcnn.config import TrainConfig
from jaxcnn.presets import PRESETS

# Learning rates of Adam to choose from, around the notebook's 1e-3.
RATES = (5e-4, 1e-3, 2e-3)


def config(preset: str, **fields: object) -> TrainConfig:
    """Return the config of a preset with other fields.

    Args:
      preset: name in PRESETS.
      fields: fields of `TrainConfig`.
    """
    base = PRESETS[preset]
    return base.name(dataclasses.replace(base.config, **fields))  # type: ignore[arg-type]


def lenet5(model: str, **fields: object) -> TrainConfig:
    """Return the config of the notebook's training on MNIST with another network."""
    return config("lenet5-mnist", model=model, **fields)
