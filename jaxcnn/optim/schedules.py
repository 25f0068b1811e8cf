"""From an optimizer config to a learning rate as a function of the step."""

from __future__ import annotations

import optax

from jaxcnn.config import OptimizerConfig


def make_schedule(
    config: OptimizerConfig, *, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """Build the learning rate as a function of the step, counted from 0.

    With accumulated gradients, all steps of an update have the rate of its first step.

    Args:
      config: `schedule` and its options.
      steps_per_epoch: steps in an epoch of the config.
      total_steps: steps of the run, warm-up included.
    """
    schedule = _schedule_of_steps(config, steps_per_epoch, total_steps)
    if config.accumulate == 1:
        return schedule
    return lambda step: schedule(step // config.accumulate * config.accumulate)


def _schedule_of_steps(
    config: OptimizerConfig, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    peak = config.learning_rate
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    rates, boundaries = [peak], []
    for epoch, part in config.rate_steps:
        boundaries.append(round(epoch * steps_per_epoch) - warmup_steps)
        rates.append(part * peak)
    match config.schedule:
        case "constant":
            schedule = optax.constant_schedule(peak)
        case "steps":
            parts = [optax.constant_schedule(rate) for rate in rates]
            schedule = optax.join_schedules(parts, boundaries)
        case "cosine":
            schedule = optax.cosine_decay_schedule(peak, total_steps - warmup_steps)
        case "linear":
            schedule = optax.linear_schedule(peak, 0, total_steps - warmup_steps)
    if not warmup_steps:
        return schedule
    rise = optax.linear_schedule(0, peak, warmup_steps)
    return optax.join_schedules([rise, schedule], [warmup_steps])
