"""From a config to an optax gradient transformation."""

from __future__ import annotations

import optax

from jaxcnn.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The update rule that the config names; Adam's other constants are optax's and torch's own."""
    match config.name:
        case "adam":
            return optax.adam(config.learning_rate)
        case "sgd":
            return optax.sgd(config.learning_rate, momentum=config.momentum)
