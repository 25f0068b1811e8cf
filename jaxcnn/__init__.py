"""The classic convolutional networks, LeNet-5 and AlexNet, in JAX and Flax linen."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxcnn.config import OptimizerConfig, TrainConfig
    from jaxcnn.data.datasets import DATASETS
    from jaxcnn.errors import RunError, UserError
    from jaxcnn.evaluation.evaluate import evaluate_run
    from jaxcnn.evaluation.predict import Classifier, load
    from jaxcnn.interop.initialize import load_initial_params
    from jaxcnn.models import MODELS
    from jaxcnn.presets import PRESETS
    from jaxcnn.training.train import train_and_evaluate

__all__ = [
    "DATASETS",
    "MODELS",
    "PRESETS",
    "Classifier",
    "OptimizerConfig",
    "RunError",
    "TrainConfig",
    "UserError",
    "evaluate_run",
    "load",
    "load_initial_params",
    "train_and_evaluate",
]

_HOMES = {
    "DATASETS": "data.datasets",
    "MODELS": "models",
    "PRESETS": "presets",
    "Classifier": "evaluation.predict",
    "OptimizerConfig": "config",
    "RunError": "errors",
    "TrainConfig": "config",
    "UserError": "errors",
    "evaluate_run": "evaluation.evaluate",
    "load": "evaluation.predict",
    "load_initial_params": "interop.initialize",
    "train_and_evaluate": "training.train",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `--help` needs the presets, and jax alone takes over a second.
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxcnn' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxcnn.{_HOMES[name]}"), name)
