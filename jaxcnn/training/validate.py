"""Checks of a config against the networks, the datasets and the size of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import linen as nn

from jaxcnn import config as configs
from jaxcnn import config_checks
from jaxcnn.config import TrainConfig
from jaxcnn.data import open as data
from jaxcnn.errors import UserError
from jaxcnn.models import network, variants

MAX_STEPS = 2**31 - 1  # a step is an int32 on the device


def validated(config: TrainConfig, *, dataset: Any = None, model: Any = None) -> TrainConfig:
    """Return the config as a run keeps it, after all checks that need no data.

    Args:
      config: the config.
      dataset: the caller's dataset, if there is one; `config.dataset` is then only a label.
      model: the caller's network, if there is one; `config.model` is then only a label.

    Raises:
      UserError: a field has a wrong type or is out of range, fields contradict each other, there is
        no such model or dataset, or the caller's is of another type.
    """
    config = config_checks.settled(config)
    if model is None:
        variants.constructor(config.model)
    elif not isinstance(model, nn.Module):
        raise UserError(
            f"the model is {model!r:.60}; expected a Flax module, such as MODELS['lenet5'](); "
            "a name belongs into the config"
        )
    if dataset is not None and not hasattr(dataset, "train_images"):
        raise UserError(
            f"the dataset is {dataset!r:.60}; expected a Dataset; a name or a folder, as "
            "folder:DIR, belongs into the config"
        )
    is_streamed = (
        config.dataset.startswith(data.STREAMED)
        if dataset is None
        else (getattr(dataset, "is_streamed", False))
    )
    if config.label_noise and is_streamed:
        raise UserError(
            f"`label_noise` is {config.label_noise}, but {config.dataset} is streamed with its own "
            "labels; set it to 0 or choose a dataset in memory"
        )
    if dataset is None:
        data.check_name(config.dataset)
        _check_dataset_fields(config)
    return configs.with_whole_paths(config)


def _check_dataset_fields(config: TrainConfig) -> None:
    if config.hold_out and not config.dataset.startswith("folder:"):
        raise UserError(
            f"`hold_out` is {config.hold_out}, but {config.dataset} has test images; it applies to "
            "folder:DIR only; remove it"
        )
    for name in ("channels", "max_value"):
        value = getattr(config, name)
        if value is not None and not config.dataset.startswith(data.STREAMED):
            raise UserError(
                f"`{name}` is {value}, but {config.dataset} is not streamed; it applies to "
                "folder:DIR and tfds:NAME only; remove it"
            )


def check_run_length(config: TrainConfig, num_examples: int) -> None:
    """Check that the run has a step, an update after warm-up, and steps that int32 can count.

    Raises:
      UserError: it does not.
    """
    if not num_examples:
        raise UserError(
            f"{config.dataset} has no training images; expected a dataset to train on; "
            "test a trained network on it"
        )
    if config.batch_size > num_examples:
        raise UserError(
            f"`batch_size` is {config.batch_size:,}; expected at most {num_examples:,}, the images "
            f"in the training set of {config.dataset}"
        )
    steps_per_epoch = num_examples // config.batch_size
    total_steps = config.epochs * steps_per_epoch
    if total_steps > MAX_STEPS:
        raise UserError(
            f"`epochs` is {config.epochs:,}; expected at most {MAX_STEPS // steps_per_epoch:,}, "
            f"because a run has at most {MAX_STEPS:,} steps"
        )
    if config.optimizer.accumulate > total_steps:
        raise UserError(
            f"`optimizer.accumulate` is {config.optimizer.accumulate:,}; expected at most "
            f"{total_steps:,}, the batches of the run"
        )
    warmup_epochs = config.optimizer.warmup_epochs
    if round(warmup_epochs * steps_per_epoch) >= total_steps:
        raise UserError(
            f"`optimizer.warmup_epochs` is {warmup_epochs}; expected less than the "
            f"{total_steps:,} batches of the run"
        )


def check_network(config: TrainConfig, model: nn.Module) -> None:
    """Check that the network supports the config's options.

    Raises:
      UserError: it does not.
    """
    if config.dtype != "float32" and not network.has_dtype(model):
        raise UserError(
            f"`dtype` is {config.dtype}; {config.model} supports float32 only; remove `dtype`"
        )
    if config.label_smoothing and network.loss_fn(model):
        raise UserError(
            f"`label_smoothing` only applies to cross-entropy, but {config.model} has a loss of "
            "its own; set it to 0"
        )
    if config.optimizer.name == "diagonal-lm" and config.class_weights == "balanced":
        raise UserError(
            f"`class_weights` is {config.class_weights}, but the curvature of diagonal-lm has no "
            "weights; set `class_weights` to sampled or none, or choose another rule"
        )
    if config.optimizer.name == "diagonal-lm" and not network.code_fn(model):
        raise UserError(
            "`optimizer.name` is diagonal-lm; it requires a network with a target code, such as "
            f"lenet5-1998, but the network is {config.model}; choose another rule or network"
        )


def check_layers(config: TrainConfig, layers: Sequence[str]) -> None:
    """Check that the network has the layers that the config names.

    Raises:
      UserError: a layer does not exist, or no layer is left to train.
    """
    named = {
        "optimizer.layer_decays": [layer for layer, _ in config.optimizer.layer_decays],
        "optimizer.layer_rates": [layer for layer, _ in config.optimizer.layer_rates],
        "init_only": config.init_only,
        "freeze": config.freeze,
    }
    for field, names in named.items():
        for layer in names:
            if layer not in layers:
                raise UserError(
                    f"`{field}` names the layer {layer!r}; expected one of {', '.join(layers)}"
                )
    if {*layers} <= {*config.freeze}:
        raise UserError("`freeze` names every layer; leave out at least one, to train it")
