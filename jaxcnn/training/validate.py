"""Checks of a config: its fields, its names, and whether its parts go together."""

from __future__ import annotations

from flax import linen as nn

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.data import open as data
from jaxcnn.errors import UserError, flag, lookup
from jaxcnn.models import MODELS, network


def validated(
    config: TrainConfig, *, model_is_given: bool = False, dataset_is_given: bool = False
) -> TrainConfig:
    """Return the config as a run keeps it, after all checks that need no data.

    Args:
      config: the config.
      model_is_given: whether its `model` is only a label, for a network that is passed along.
      dataset_is_given: whether its `dataset` is only a label, likewise.

    Raises:
      UserError: a field is out of its bounds, or there is no such model or dataset.
    """
    configs.check(config)
    if not model_is_given:
        lookup("model", config.model, MODELS)
    if not dataset_is_given:
        data.check_name(config.dataset)
        _check_dataset_fields(config)
    return configs.with_whole_paths(config)


def _check_dataset_fields(config: TrainConfig) -> None:
    if config.hold_out and not config.dataset.startswith("folder:"):
        raise UserError(
            f"--hold-out is {config.hold_out}, but {config.dataset} has test images; it applies to "
            "folder:DIR only; remove it"
        )
    for name in ("channels", "max_value"):
        value = getattr(config, name)
        if value is not None and not config.dataset.startswith(data.STREAMED):
            raise UserError(
                f"{flag(name)} is {value}, but {config.dataset} is not streamed; it applies to "
                "folder:DIR and tfds:NAME only; remove it"
            )


def check_run_length(config: TrainConfig, num_examples: int) -> None:
    """Check that the training set has a batch, and the run an update.

    Raises:
      UserError: it does not.
    """
    if config.batch_size > num_examples:
        raise UserError(
            f"--batch-size {config.batch_size} is larger than the training set of "
            f"{config.dataset}, {num_examples:,} images"
        )
    steps_per_epoch = num_examples // config.batch_size
    total_steps = config.epochs * steps_per_epoch
    if config.optimizer.accumulate > total_steps:
        raise UserError(
            f"--optimizer.accumulate is {config.optimizer.accumulate}: the run has only "
            f"{total_steps:,} batches, and would never update"
        )
    warmup_epochs = config.optimizer.warmup_epochs
    if round(warmup_epochs * steps_per_epoch) >= total_steps:
        raise UserError(
            f"--optimizer.warmup-epochs is {warmup_epochs}: it takes all of the run's "
            f"{total_steps:,} batches"
        )


def check_network(config: TrainConfig, model: nn.Module) -> None:
    """Check that the network has what the config asks of it.

    Raises:
      UserError: it does not.
    """
    if config.dtype != "float32" and not network.has_dtype(model):
        raise UserError(f"--dtype is {config.dtype}, and {config.model} has float32 only")
    if config.label_smoothing and network.loss_fn(model):
        raise UserError(
            f"--label-smoothing is of cross-entropy, and {config.model} has a loss of its own"
        )
    if config.optimizer.name == "diagonal-lm" and not network.code_fn(model):
        raise UserError(
            "--optimizer.name diagonal-lm needs a network that draws a target, as lenet5-1998 "
            f"does; {config.model} does not"
        )


def check_layers(config: TrainConfig, layers: list[str]) -> None:
    """Check that the optimizer's layers are those of the network.

    Raises:
      UserError: it names one that does not exist.
    """
    for layer, _ in config.optimizer.layer_decays:
        if layer not in layers:
            raise UserError(
                f"--optimizer.layer-decays names {layer}: there are {', '.join(layers)}"
            )
