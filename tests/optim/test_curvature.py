"""The diagonal of the Gauss-Newton matrix, and the rule of 1998 that divides by it."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.config import OptimizerConfig
from jaxcnn.optim.curvature import gauss_newton_diagonal
from jaxcnn.optim.optimizers import make_optimizer
from jaxcnn.optim.schedules import make_schedule


def make_tx(*arguments, **options):
    return make_optimizer(*arguments, **options).tx


def test_gauss_newton_diagonal_of_least_squares_is_the_hessians():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, [1, 2, 3], (20, 3)), jnp.float32)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "bias": jnp.ones((1, 2))}

    def outputs(params, x):
        return x @ params["kernel"] + params["bias"]

    def loss(kernel):
        return (outputs(params | {"kernel": kernel}, x) ** 2).sum(-1).mean()

    curvature = jax.jit(gauss_newton_diagonal, static_argnums=0)(
        outputs, params, x, jax.random.key(0)
    )
    mean_squares = np.mean(x**2, axis=0)
    expected = {"kernel": 2 * np.stack([mean_squares] * 2, axis=1), "bias": np.full((1, 2), 2.0)}
    chex.assert_trees_all_close(curvature, expected, rtol=1e-5)
    hessian = jax.hessian(loss)(params["kernel"]).reshape(6, 6)
    chex.assert_trees_all_close(curvature["kernel"].ravel(), jnp.diag(hessian), rtol=1e-5)


def test_gauss_newton_diagonal_of_a_shared_weight():
    # r = tanh(w) (1, -2, 3): 2 (1 + 4 + 9) tanh'(w)^2, whatever the signs of the three.
    def outputs(w, x):
        return jnp.tanh(w) * x

    x, w = jnp.tile(jnp.array([[1.0, -2, 3]]), (4000, 1)), jnp.float32(0.5)
    curvature = jax.jit(gauss_newton_diagonal, static_argnums=0)(outputs, w, x, jax.random.key(0))
    chex.assert_trees_all_close(curvature, 28 / np.cosh(0.5) ** 4, rtol=0.05)


def test_scale_by_diagonal_curvature_divides_by_mu_and_the_curvature():
    params = {"flat": jnp.zeros(2), "steep": jnp.zeros(1)}
    config = OptimizerConfig(name="diagonal-lm", learning_rate=0.1, mu=0.5)
    tx = make_tx(config, make_schedule(config, steps_per_epoch=1, total_steps=9))
    state = tx.init(params)
    grads = {"flat": jnp.array([1.0, -2]), "steep": jnp.array([8.0])}
    updates, state = tx.update(grads, state, params)
    expected = {"flat": jnp.array([-0.2, 0.4]), "steep": jnp.array([-1.6])}
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)

    curvature = {"flat": jnp.array([0.0, 0.5]), "steep": jnp.array([7.5])}
    state = optax.tree_utils.tree_set(state, curvature=curvature)
    expected = {"flat": jnp.array([-0.2, 0.2]), "steep": jnp.array([-0.1])}
    for _ in range(2):  # the curvature is unchanged
        updates, state = tx.update(grads, state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
