import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.config import OptimizerConfig
from jaxcnn.optimizers import (
    gauss_newton_diagonal,
    make_optimizer,
    make_schedule,
)


def path(config, grads):
    """Where a parameter is after each step, from 0 on."""
    tx = make_optimizer(config, make_schedule(config, steps_per_epoch=2, total_steps=len(grads)))
    param = jnp.zeros(())
    state, params = tx.init(param), []
    for grad in grads:
        updates, state = tx.update(jnp.float32(grad), state, param)
        param = optax.apply_updates(param, updates)
        params.append(float(param))
    return np.array(params)


def rates(total_steps, **fields):
    """The rate at each step, two steps to an epoch."""
    config = OptimizerConfig(learning_rate=8.0, **fields)
    schedule = make_schedule(config, steps_per_epoch=2, total_steps=total_steps)
    return [float(schedule(step)) for step in range(total_steps)]


def test_schedules_by_hand():
    assert rates(3) == [8, 8, 8]
    steps = ((1.0, 0.5), (2.5, 0.25))
    assert rates(6, schedule="steps", rate_steps=steps) == [8, 8, 4, 4, 4, 2]
    assert rates(4, schedule="linear") == [8, 6, 4, 2]
    cosine = [8, 4 + 4 * np.cos(np.pi / 4), 4, 4 - 4 * np.cos(np.pi / 4)]
    chex.assert_trees_all_close(rates(4, schedule="cosine"), cosine, rtol=1e-6)


def test_schedules_after_a_warm_up():
    assert rates(5, warmup_epochs=1.0) == [0, 4, 8, 8, 8]
    assert rates(6, warmup_epochs=1.0, schedule="linear") == [0, 4, 8, 6, 4, 2]
    cosine = rates(4, warmup_epochs=1.0, schedule="cosine")
    chex.assert_trees_all_close(cosine, [0.0, 4.0, 8.0, 4.0], rtol=1e-6)
    steps = ((1.5, 0.5),)
    assert rates(5, warmup_epochs=1.0, schedule="steps", rate_steps=steps) == [0, 4, 8, 4, 4]


def test_the_rate_follows_the_schedule():
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, momentum=0.0, schedule="steps", rate_steps=((1.0, 0.5),)
    )
    assert path(config, [1, 1, 1]).tolist() == [-1, -2, -2.5]


def test_sgd_by_hand():
    # velocity <- velocity / 2 + gradient: 1, 2.5, 0.25
    sgd = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.5)
    chex.assert_trees_all_close(path(sgd, [1, 2, -1]), np.array([-0.1, -0.35, -0.375]), rtol=1e-6)


def test_adam_by_hand():
    # Kingma and Ba 2015, algorithm 1, with its own constants.
    grads, rate, first, second, param, expected = [1.0, -3.0, 0.5], 0.01, 0.0, 0.0, 0.0, []
    for t, grad in enumerate(grads, start=1):
        first = 0.9 * first + 0.1 * grad
        second = 0.999 * second + 0.001 * grad**2
        mean, variance = first / (1 - 0.9**t), second / (1 - 0.999**t)
        param -= rate * mean / (np.sqrt(variance) + 1e-8)
        expected.append(param)
    adam = OptimizerConfig(name="adam", learning_rate=rate)
    chex.assert_trees_all_close(path(adam, grads), np.array(expected), rtol=1e-5)


def test_curvature_of_linear_least_squares_is_the_hessians_diagonal():
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


def test_curvature_of_a_shared_weight_in_the_mean_over_signs():
    # r = tanh(w) (1, -2, 3): 2 (1 + 4 + 9) tanh'(w)^2, whatever the signs of the three.
    def outputs(w, x):
        return jnp.tanh(w) * x

    x, w = jnp.tile(jnp.array([[1.0, -2, 3]]), (4000, 1)), jnp.float32(0.5)
    curvature = jax.jit(gauss_newton_diagonal, static_argnums=0)(outputs, w, x, jax.random.key(0))
    chex.assert_trees_all_close(curvature, 28 / np.cosh(0.5) ** 4, rtol=0.05)


def test_steps_are_divided_by_mu_and_the_curvature():
    params = {"flat": jnp.zeros(2), "steep": jnp.zeros(1)}
    config = OptimizerConfig(name="diagonal-lm", learning_rate=0.1, mu=0.5)
    tx = make_optimizer(config, make_schedule(config, steps_per_epoch=1, total_steps=9))
    state = tx.init(params)
    grads = {"flat": jnp.array([1.0, -2]), "steep": jnp.array([8.0])}
    updates, state = tx.update(grads, state, params)
    expected = {"flat": jnp.array([-0.2, 0.4]), "steep": jnp.array([-1.6])}
    chex.assert_trees_all_close(updates, expected, rtol=1e-6)

    curvature = {"flat": jnp.array([0.0, 0.5]), "steep": jnp.array([7.5])}
    state = optax.tree_utils.tree_set(state, curvature=curvature)
    expected = {"flat": jnp.array([-0.2, 0.2]), "steep": jnp.array([-0.1])}
    for _ in range(2):  # the curvature stays
        updates, state = tx.update(grads, state, params)
        chex.assert_trees_all_close(updates, expected, rtol=1e-6)
