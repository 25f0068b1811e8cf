"""From a config to an optax gradient transformation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnn.config import OptimizerConfig


def make_schedule(
    config: OptimizerConfig, *, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
    """The learning rate as a function of the step, counted from 0.

    Where gradients are accumulated, the steps of an update have the rate of the first of them.

    Args:
      config: `schedule` and what goes with it.
      steps_per_epoch: what an epoch means in the config.
      total_steps: of the run, warm-up and all.
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


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, *, ema_decay: float = 0.0
) -> optax.GradientTransformation:
    """The update rule that the config names; Adam's other constants are optax's and torch's own.

    In this order: the mean gradient of `accumulate` batches, clipping, the rule with its decay, the
    rate of biases, the moving average of the parameters. A bias is a parameter called `bias`,
    whatever its shape: locally connected layers have biases of three dimensions. A layer is all
    parameters under one name of the network's.

    Args:
      config: the rule and what goes with it.
      schedule: the learning rate as a function of the step, as `make_schedule` makes it.
      ema_decay: see `average_parameters`; 0 keeps no average.
    """

    def rate(update: jax.Array) -> jax.Array:
        return schedule(update * config.accumulate)

    decay = _add_decays(config)
    match config.name:
        case "adam":
            rule = optax.adam(rate)
        case "adamw":
            rule = optax.chain(optax.scale_by_adam(), decay, optax.scale_by_learning_rate(rate))
        case "sgd":
            rule = optax.chain(decay, optax.sgd(rate, config.momentum, config.nesterov))
        case "sgd-2012":
            rule = optax.chain(decay, sgd_2012(rate, config.momentum))
        case "diagonal-lm":
            rule = optax.chain(
                scale_by_diagonal_curvature(config.mu), optax.scale_by_learning_rate(rate)
            )
    if config.clip_norm:
        rule = optax.chain(optax.clip_by_global_norm(config.clip_norm), rule)
    if config.bias_rate != 1:
        rule = optax.chain(rule, optax.masked(optax.scale(config.bias_rate), _is_bias))
    if ema_decay:
        rule = optax.chain(rule, average_parameters(ema_decay))
    if config.accumulate > 1:
        rule = optax.MultiSteps(rule, config.accumulate).gradient_transformation()
    return rule


def sgd_2012(
    learning_rate: optax.ScalarOrSchedule, momentum: float
) -> optax.GradientTransformation:
    """Gradient descent as AlexNet was trained: v <- momentum v - rate g, w += v.

    The rate is in the velocity, where PyTorch has it outside, w -= rate v. At a constant rate the
    two are the same; when it changes, the velocity of before keeps here the rate of before.

    Args:
      learning_rate: or a schedule of updates.
      momentum: what is left of the velocity after an update, in [0, 1); 0.9 in the paper. Its g is
        the gradient with 5e-4 w added; cuda-convnet, which it was trained with, decays no bias.

    References:
      Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
      Networks", 2012, section 5.
    """
    return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))


def _add_decays(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adds to each gradient its parameter times the decay of its layer."""
    of_layers = dict(config.layer_decays)

    def add(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        decay = of_layers.get(_name(path[:1]), config.weight_decay)
        decays = config.decay_biases or (_name(path[-1:]) != "bias" and param.ndim >= 2)
        return update + decay * param if decay and decays else update

    return optax.stateless(partial(jax.tree_util.tree_map_with_path, add))


def _is_bias(params: optax.Params) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path[-1:]) == "bias", params)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True)


class AverageParametersState(NamedTuple):
    """The mean, for `optax.tree_utils.tree_get(opt_state, "ema_params")`."""

    num_updates: jax.Array
    """So far."""
    ema_params: optax.Params
    """Shaped as the parameters."""


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keep an exponential moving average of the parameters; updates pass as they are.

    The last of a chain: the mean is of what the updates make of the parameters. Its decay after t
    updates is min(decay, (1 + t) / (10 + t)), so that it soon leaves the initial parameters behind.

    Args:
      decay: what is left of the past after an update, in [0, 1).

    References:
      TensorFlow's `tf.train.ExponentialMovingAverage`, with `num_updates`.
    """

    def init(params: optax.Params) -> AverageParametersState:
        # A copy: a state is donated, and no buffer can be twice.
        copy = jax.tree.map(jnp.copy, params)
        return AverageParametersState(jnp.zeros((), jnp.int32), copy)

    def update(
        updates: optax.Updates, state: AverageParametersState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, AverageParametersState]:
        t = state.num_updates + 1
        updated = optax.apply_updates(params, updates)
        step_size = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
        average = optax.incremental_update(updated, state.ema_params, step_size)
        return updates, AverageParametersState(t, average)

    return optax.GradientTransformation(init, update)


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
