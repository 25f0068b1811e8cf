"""From a config to an optax gradient transformation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnn.config import OptimizerConfig


def make_schedule(
    config: OptimizerConfig, *, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    Args:
      config: `schedule` and what goes with it.
      steps_per_epoch: what an epoch means in the config.
      total_steps: of the run, warm-up and all.
    """
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


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The update rule that the config names; Adam's other constants are optax's and torch's own."""
    match config.name:
        case "adam":
            return optax.adam(schedule)
        case "sgd":
            return optax.sgd(schedule, momentum=config.momentum)
        case "diagonal-lm":
            return optax.chain(
                scale_by_diagonal_curvature(config.mu), optax.scale_by_learning_rate(schedule)
            )


class ScaleByDiagonalCurvatureState(NamedTuple):
    """The last estimate; `optax.tree_utils.tree_set(opt_state, curvature=...)` puts in another."""

    curvature: optax.Params
    """h_k of each parameter, not negative; 0 until the first estimate."""


def scale_by_diagonal_curvature(mu: float) -> optax.GradientTransformation:
    """Divide each gradient by mu + h_k, the curvature of the loss along that parameter.

    Followed by a learning rate eta, it is the stochastic diagonal Levenberg-Marquardt method: step
    sizes of eta / (mu + h_k), at most eta / mu where the loss is flat. The curvature is not
    followed here: it stays what it was last set to, once a pass in the paper, by
    `gauss_newton_diagonal` on 500 examples.

    Args:
      mu: positive, in the loss's own units as h_k is. The paper's is 0.02 (section III), of a loss
        whose scale it leaves open.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, appendix C.
    """

    def init(params: optax.Params) -> ScaleByDiagonalCurvatureState:
        return ScaleByDiagonalCurvatureState(jax.tree.map(jnp.zeros_like, params))

    def update(
        updates: optax.Updates,
        state: ScaleByDiagonalCurvatureState,
        params: optax.Params | None = None,
    ) -> tuple[optax.Updates, ScaleByDiagonalCurvatureState]:
        return jax.tree.map(lambda g, h: g / (mu + h), updates, state.curvature), state

    return optax.GradientTransformation(init, update)


def gauss_newton_diagonal(
    residuals: Callable[[optax.Params, jax.Array], jax.Array],
    params: optax.Params,
    examples: jax.Array,
    key: jax.Array,
) -> optax.Params:
    """The diagonal of the Gauss-Newton matrix of a sum of squares, estimated without bias.

    For the loss mean_n sum_i r_ni^2 it is h_k = 2 mean_n sum_i (d r_ni / d w_k)^2: the Hessian's
    diagonal without the second derivatives of r, never negative. With random signs v, the square of
    d (v . r_n) / d w_k has the inner sum for its mean, so one backward pass for each example will
    do. It is exact for parameters that touch one residual only.

    Departs from appendix C, which carries squared derivatives backwards through the layers and
    drops all products of different units there. Here none is dropped, so that neither layers nor
    weight sharing need rules of their own, and the places that share a weight add up before
    squaring, as they do in the loss.

    Args:
      residuals: `(params, [1, ...]) -> array`, of one example at a time. Targets that are
        subtracted do not matter: what the network puts out will do.
      params: where.
      examples: [examples, ...].
      key: decides the signs.

    Returns:
      h, shaped as `params`.
    """

    def add_example(
        total: optax.Params, example_and_key: tuple[jax.Array, jax.Array]
    ) -> tuple[optax.Params, None]:
        example, key = example_and_key
        outputs, pullback = jax.vjp(lambda params: residuals(params, example[None]), params)
        (slopes,) = pullback(jax.random.rademacher(key, outputs.shape, outputs.dtype))
        return jax.tree.map(lambda sum_, slope: sum_ + slope**2, total, slopes), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    keys = jax.random.split(key, len(examples))
    total, _ = jax.lax.scan(add_example, zeros, (examples, keys))
    return jax.tree.map(lambda sum_: 2 * sum_ / len(examples), total)
