"""Checks of a config by itself: types, bounds, and fields that contradict each other."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from jaxcnn import records
from jaxcnn.config import OnlyWith, OptimizerConfig, TrainConfig, field_types
from jaxcnn.data.transforms import from_text, to_text
from jaxcnn.errors import UserError
from jaxcnn.paths import local_path


def settled(config: TrainConfig) -> TrainConfig:
    """Return the config with plain Python values: NumPy's numbers become Python's, lists tuples.

    Raises:
      UserError: a field has a wrong type or is out of its bounds, or fields contradict each other.
    """
    if not isinstance(config, TrainConfig):
        first_line = repr(config).partition("\n")[0]
        raise UserError(
            f"the config is {first_line:.60}; expected a TrainConfig, such as "
            "PRESETS['lenet5-mnist5k'].config"
        )
    config = _plain(config)
    for name in ("workdir", "data_dir", "manual_dir"):
        if getattr(config, name) is not None:
            local_path(getattr(config, name), f"`{name}`")
    if config.dataset.startswith("folder:"):
        local_path(config.dataset.removeprefix("folder:"), "`dataset`")
    for name in ("pixel_mean", "pixel_std"):
        if not getattr(config, name):
            raise UserError(f"`{name}` is empty; expected one value, or one for each channel")
    if config.patience is not None and not config.val_fraction:
        raise UserError(
            f"`patience` is {config.patience}, but there is no validation split, and stopping by "
            "the test set would fit the run to it; set `val_fraction`, such as 0.1, or remove "
            "`patience`"
        )
    _check_launch(config)
    _check_start(config)
    _check_decays(config.optimizer)
    _check_schedule(config.optimizer, config.epochs)
    _check_lengths(config)
    return config


def _plain(config: Any, prefix: str = "") -> Any:
    """Return a config whose fields have the types and bounds of their annotations."""
    values: dict[str, Any] = {}
    cls: Any = type(config)
    for name, kind in records.type_hints(cls).items():
        value, label = getattr(config, name), f"`{prefix}{name}`"
        if name == "optimizer":
            if not isinstance(value, OptimizerConfig):
                raise UserError(f"{label} is {value!r:.60}; expected an OptimizerConfig")
            values[name] = _plain(value, "optimizer.")
        elif name == "transforms":
            if not isinstance(value, list | tuple):
                raise UserError(f"{label} is {value!r:.60}; expected a tuple of transforms")
            values[name] = tuple(from_text(to_text(transform)) for transform in value)
        else:
            try:
                value = records.plain(value)
            except (TypeError, ValueError):  # an object that JSON cannot hold
                raise UserError(f"{label} is {value!r:.60}; expected a number or a text") from None
            values[name] = records.convert(value, kind, label)
    return dataclasses.replace(config, **values)


def _check_launch(config: TrainConfig) -> None:
    for name in ("coordinator", "num_processes", "process_id"):
        if getattr(config, name) is not None and not config.multihost:
            raise UserError(f"`{name}` requires `multihost`; add it or remove `{name}`")
    if config.num_processes is not None and (config.process_id or 0) >= config.num_processes:
        raise UserError(
            f"`process_id` is {config.process_id}; expected less than `num_processes`, "
            f"{config.num_processes}"
        )


def _check_start(config: TrainConfig) -> None:
    if config.debug_nans and config.on_nonfinite == "skip":
        raise UserError(
            "`debug_nans` stops at the first step that is not finite, but `on_nonfinite` is skip; "
            "remove one of them"
        )
    if config.init_from is not None:
        local_path(config.init_from, "`init_from`")
    for name in ("init_only", "new_head"):
        if getattr(config, name) and config.init_from is None:
            raise UserError(f"`{name}` requires `init_from`; add it or remove `{name}`")
    if config.freeze and config.optimizer.name == "diagonal-lm":
        raise UserError(
            "`freeze` is given, but `optimizer.name` is diagonal-lm, which estimates the curvature "
            "of all layers; choose another rule"
        )


def _check_lengths(config: TrainConfig) -> None:
    lengths = (*config.continued_from, config.epochs)
    if not all(length < following for length, following in itertools.pairwise(lengths)):
        raise UserError(
            f"`epochs` is {config.epochs}, but the run has {max(config.continued_from)} already; "
            "expected more"
        )
    schedule = config.optimizer.schedule
    if config.continued_from and schedule in ("cosine", "linear"):
        raise UserError(
            f"`optimizer.schedule` is {schedule}, whose rates depend on the length of the run; a "
            "run can be continued with constant or steps; to train its network further, start a "
            "new run with `init_from`"
        )


def _check_decays(optimizer: OptimizerConfig) -> None:
    for name, (_, *marks) in field_types(OptimizerConfig).items():
        value, default = getattr(optimizer, name), getattr(OptimizerConfig, name)
        for mark in marks:
            if isinstance(mark, OnlyWith) and optimizer.name not in mark.rules and value != default:
                rules = " or ".join(mark.rules)
                raise UserError(
                    f"`optimizer.{name}` only applies to {rules}, but `optimizer.name` is "
                    f"{optimizer.name}; set it to {default} or choose {rules}"
                )
    for name in ("layer_decays", "layer_rates"):
        layers = [layer for layer, _ in getattr(optimizer, name)]
        if len({*layers}) < len(layers):
            raise UserError(f"`optimizer.{name}` names {', '.join(layers)}; expected each once")
    decays = (optimizer.weight_decay, *(decay for _, decay in optimizer.layer_decays))
    if optimizer.decay_biases and not any(decays):
        raise UserError(
            "`optimizer.decay_biases` requires a positive `optimizer.weight_decay`; set it"
        )


def _check_schedule(optimizer: OptimizerConfig, epochs: int) -> None:
    if optimizer.warmup_epochs >= epochs:
        raise UserError(
            f"`optimizer.warmup_epochs` is {optimizer.warmup_epochs}; expected less than "
            f"{epochs:,}, the epochs of the run"
        )
    starts = [optimizer.warmup_epochs, *(epoch for epoch, _ in optimizer.rate_steps)]
    if not all(start < following for start, following in itertools.pairwise(starts)):
        raise UserError(
            f"`optimizer.rate_steps` is {optimizer.rate_steps}; expected ascending epochs, the "
            f"first after {optimizer.warmup_epochs}, the end of the warm-up"
        )
    if bool(optimizer.rate_steps) != (optimizer.schedule == "steps"):
        raise UserError(
            f"`optimizer.schedule` is {optimizer.schedule}, and `optimizer.rate_steps` has "
            f"{len(optimizer.rate_steps)} pairs; expected pairs if and only if the schedule is "
            "steps"
        )
