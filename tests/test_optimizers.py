import chex
import jax.numpy as jnp
import numpy as np
import optax

from jaxcnn.config import OptimizerConfig
from jaxcnn.optimizers import make_optimizer


def path(config, grads):
    """Where a parameter is after each step, from 0 on."""
    tx = make_optimizer(config)
    param = jnp.zeros(())
    state, params = tx.init(param), []
    for grad in grads:
        updates, state = tx.update(jnp.float32(grad), state, param)
        param = optax.apply_updates(param, updates)
        params.append(float(param))
    return np.array(params)


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
