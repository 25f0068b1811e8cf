"""From an optimizer config to an optax gradient transformation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxcnn.config import OptimizerConfig
from jaxcnn.optim.curvature import BEFORE_EPOCH, BeforeEpoch, scale_by_diagonal_curvature


class Optimizer(NamedTuple):
    """An update rule, and its update before an epoch.

    Attributes:
      tx: the optax gradient transformation.
      before_epoch: update of the optimizer's state before the first step of an epoch, if any.
    """

    tx: optax.GradientTransformation
    before_epoch: BeforeEpoch | None = None


def make_optimizer(
    config: OptimizerConfig,
    schedule: optax.Schedule,
    *,
    ema_decay: float = 0.0,
    frozen: Collection[str] = (),
) -> Optimizer:
    """Build the optimizer of a config; Adam's other constants are optax's, which are PyTorch's.

    The order is: mean gradient of `accumulate` batches, clipping, the rule with its weight decay,
    the rates of biases and layers, the moving average of the parameters. A bias is a parameter
    named `bias`, whatever its shape: locally connected layers have biases of three dimensions. A
    layer is all parameters under one top-level name of the network.

    Args:
      config: update rule and its options.
      schedule: learning rate as a function of the step; see `make_schedule`.
      ema_decay: decay of `average_parameters`; 0 keeps no average.
      frozen: layers that never change. They have no optimizer state, and the norm of the gradients
        leaves them out.
    """

    def rate(update: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
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
    if config.layer_rates:
        rule = optax.chain(rule, _scale_layers(dict(config.layer_rates)))
    if ema_decay:
        rule = optax.chain(rule, average_parameters(ema_decay))
    if config.accumulate > 1:
        rule = optax.MultiSteps(rule, config.accumulate).gradient_transformation()
    if frozen:

        def group(params: optax.Params) -> Any:
            return jax.tree_util.tree_map_with_path(
                lambda path, _: "frozen" if _name(path[:1]) in frozen else "trained", params
            )

        rule = optax.partition({"frozen": optax.set_to_zero(), "trained": rule}, group)
    before_epoch = BEFORE_EPOCH if config.name == "diagonal-lm" else None
    return Optimizer(rule, before_epoch)


def sgd_2012(
    learning_rate: optax.ScalarOrSchedule, momentum: float
) -> optax.GradientTransformation:
    """Return gradient descent as AlexNet was trained: v <- momentum v - rate g, w += v.

    The rate is inside the velocity; in PyTorch it is outside, w -= rate v. The two are equal at a
    constant rate. When the rate changes, the earlier velocity keeps the earlier rate. The paper's g
    is the gradient plus 5e-4 w; cuda-convnet, the program behind the paper, decays no bias.

    Args:
      learning_rate: learning rate, or a schedule of updates.
      momentum: fraction of the velocity that an update keeps, in [0, 1); 0.9 in the paper.

    References:
      Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
      Networks", 2012, section 5.
    """
    return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(momentum))


def _add_decays(config: OptimizerConfig) -> optax.GradientTransformation:
    """Add to each gradient its parameter times the decay of its layer."""
    of_layers = dict(config.layer_decays)

    def add(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        decay = of_layers.get(_name(path[:1]), config.weight_decay)
        decays = config.decay_biases or (_name(path[-1:]) != "bias" and param.ndim >= 2)
        return update + decay * param if decay and decays else update

    return optax.stateless(partial(jax.tree_util.tree_map_with_path, add))


def _is_bias(params: optax.Params) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path[-1:]) == "bias", params)


def _scale_layers(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the updates of each layer by its rate, 1 by default."""

    def scale(path: Any, update: jax.Array) -> jax.Array:
        return update * rates.get(_name(path[:1]), 1.0)

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True)


class AverageParametersState(NamedTuple):
    """State with the average, for `optax.tree_utils.tree_get(opt_state, "ema_params")`."""

    num_updates: jax.Array
    """Number of updates so far."""
    ema_params: optax.Params
    """Moving average, shaped as the parameters."""


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Keep an exponential moving average of the parameters; return updates unchanged.

    It must be the last transformation of a chain, because it averages the parameters after the
    update. Its decay after t updates is min(decay, (1 + t) / (10 + t)), so that the weight of the
    initial parameters soon vanishes.

    Args:
      decay: fraction of the average that an update keeps, in [0, 1).

    References:
      TensorFlow's `tf.train.ExponentialMovingAverage`, with `num_updates`.
    """

    def init(params: optax.Params) -> AverageParametersState:
        # Copy, because a donated state must not alias buffers.
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
