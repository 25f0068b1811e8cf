"""The stochastic diagonal Levenberg-Marquardt method of 1998."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScaleByDiagonalCurvatureState(NamedTuple):
    """State with the last estimate, for `optax.tree_utils.tree_set(opt_state, curvature=...)`."""

    curvature: optax.Params
    """h_k of each parameter, not negative; 0 until the first estimate."""


def scale_by_diagonal_curvature(mu: float) -> optax.GradientTransformation:
    """Divide each gradient by mu + h_k, the curvature of the loss along that parameter.

    Followed by a learning rate eta, this is the stochastic diagonal Levenberg-Marquardt method: its
    step sizes are eta / (mu + h_k), at most eta / mu where the loss is flat. The transformation
    does not update the curvature. `gauss_newton_diagonal` estimates it, once a pass on 500 examples
    in the paper.

    Args:
      mu: positive number in the unit of the loss, as h_k; 0.02 in the paper (section III), which
        does not define the scale of its loss.

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
    *,
    skip_nonfinite: bool = False,
) -> optax.Params:
    """Return an unbiased estimate of the Gauss-Newton diagonal of a sum of squares.

    For the loss mean_n sum_i r_ni^2 the diagonal is h_k = 2 mean_n sum_i (d r_ni / d w_k)^2. It is
    the diagonal of the Hessian without the second derivatives of r, and never negative. With random
    signs v, the expectation of (d (v . r_n) / d w_k)^2 is the inner sum, so one backward pass for
    each example suffices. The estimate is exact for parameters that affect one residual only.

    This departs from appendix C of LeCun et al. 1998, which propagates squared derivatives
    backwards through the layers and drops all products of different units. Here no product is
    dropped, so neither layers nor weight sharing need separate rules, and the derivatives at the
    positions that share a weight are added before they are squared, as in the loss.

    Args:
      residuals: function `(params, [1, ...]) -> array` of one example. Subtracted targets do not
        change the result, so the outputs of the network suffice.
      params: parameters at which to estimate.
      examples: examples [examples, ...].
      key: random key of the signs.
      skip_nonfinite: leave out the examples whose squared derivatives are not finite.

    Returns:
      h, shaped as `params`; 0 if all examples are left out.
    """

    def add_example(
        total: optax.Params, example_and_key: tuple[jax.Array, jax.Array]
    ) -> tuple[optax.Params, jax.Array | None]:
        example, key = example_and_key
        outputs, pullback = jax.vjp(lambda params: residuals(params, example[None]), params)
        (slopes,) = pullback(jax.random.rademacher(key, outputs.shape, outputs.dtype))
        after = jax.tree.map(lambda sum_, slope: sum_ + slope**2, total, slopes)
        if not skip_nonfinite:
            return after, None
        finite = jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after)]).all()
        return jax.lax.cond(finite, lambda: after, lambda: total), finite

    zeros = jax.tree.map(jnp.zeros_like, params)
    keys = jax.random.split(key, len(examples))
    total, finite = jax.lax.scan(add_example, zeros, (examples, keys))
    count = len(examples) if finite is None else jnp.maximum(1, finite.sum(dtype=jnp.float32))
    return jax.tree.map(lambda sum_: 2 * sum_ / count, total)


class BeforeEpoch(NamedTuple):
    """An update of the optimizer's state before the first step of an epoch.

    Attributes:
      update: `(code_fn, params, opt_state, images, key, skip_nonfinite=False) -> opt_state`.
      num_examples: number of training images that `update` reads.
    """

    update: Callable[..., optax.OptState]
    num_examples: int


def update_curvature(
    code_fn: Callable[[optax.Params, jax.Array], jax.Array],
    params: optax.Params,
    opt_state: optax.OptState,
    images: jax.Array,
    key: jax.Array,
    *,
    skip_nonfinite: bool = False,
) -> optax.OptState:
    """Return the optimizer's state with a new estimate of the curvature.

    Args:
      code_fn: function `(params, images) -> code`; the loss is the code's squared distance from a
        target.
      params: parameters of the network.
      opt_state: state that holds a `ScaleByDiagonalCurvatureState`.
      images: preprocessed images to estimate from.
      key: random key of the estimate.
      skip_nonfinite: see `gauss_newton_diagonal`.
    """
    curvature = gauss_newton_diagonal(code_fn, params, images, key, skip_nonfinite=skip_nonfinite)
    return optax.tree_utils.tree_set(opt_state, curvature=curvature)


# 500 examples: LeCun et al. 1998, section III.B.
BEFORE_EPOCH = BeforeEpoch(update_curvature, num_examples=500)
