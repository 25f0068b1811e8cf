"""Optimizers compared with the papers' loops and with PyTorch."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.config import OptimizerConfig
from jaxcnn.optim.optimizers import average_parameters, make_optimizer
from jaxcnn.optim.schedules import make_schedule

RNG = np.random.default_rng(0)
START = RNG.normal(size=(2, 3)).astype(np.float32)
GRADS = RNG.normal(size=(8, 2, 3)).astype(np.float32)
FALLING = {"schedule": "steps", "rate_steps": ((1.0, 0.5), (2.5, 0.1))}
FALLING_RATES = 0.1 * np.array([1, 1, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1])
PARAMS = {
    "dense": {"kernel": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)},
    "local": {"kernel": np.ones((2, 2, 3), np.float32), "bias": np.ones((2, 2, 3), np.float32)},
    "pool": {"coefficient": np.ones(2, np.float32)},
}


def make_tx(*arguments, **options):
    return make_optimizer(*arguments, **options).tx


def path(config, grads):
    """Return a parameter after each step, starting from 0."""
    tx = make_tx(config, make_schedule(config, steps_per_epoch=2, total_steps=len(grads)))
    param = jnp.zeros(())
    state, params = tx.init(param), []
    for grad in grads:
        updates, state = tx.update(jnp.float32(grad), state, param)
        param = optax.apply_updates(param, updates)
        params.append(float(param))
    return np.array(params)


def rates(total_steps, **fields):
    """Return the rate at each step, with two steps per epoch."""
    config = OptimizerConfig(learning_rate=8.0, **fields)
    schedule = make_schedule(config, steps_per_epoch=2, total_steps=total_steps)
    return [float(schedule(step)) for step in range(total_steps)]


def test_make_optimizer_follows_the_schedule():
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, momentum=0.0, schedule="steps", rate_steps=((1.0, 0.5),)
    )
    assert path(config, [1, 1, 1]).tolist() == [-1, -2, -2.5]


def test_make_optimizer_sgd_by_hand():
    # velocity <- velocity / 2 + gradient: 1, 2.5, 0.25
    sgd = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.5)
    chex.assert_trees_all_close(path(sgd, [1, 2, -1]), np.array([-0.1, -0.35, -0.375]), rtol=1e-6)


def test_make_optimizer_adam_by_hand():
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


def matrix_path(config, grads=GRADS, params=START):
    """Return a matrix, or a tree of them with the gradients `grads`, after each step."""
    schedule = make_schedule(config, steps_per_epoch=2, total_steps=len(grads))
    tx = make_tx(config, schedule)
    state, places = tx.init(params), []
    update = jax.jit(tx.update)
    for grad in grads:
        updates, state = update(grad, state, params)
        params = optax.apply_updates(params, updates)
        places.append(params)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *places)


def sgd_by_numpy(rates, momentum, decay, rate_inside, nesterov=False):
    w, velocity, places = START.astype(float), np.zeros_like(START, float), []
    for rate, grad in zip(rates, GRADS, strict=True):
        if rate_inside:  # Krizhevsky et al. 2012, section 5, line by line
            velocity = momentum * velocity - decay * rate * w - rate * grad
            w = w + velocity
        else:
            gradient = grad + decay * w
            velocity = momentum * velocity + gradient
            w = w - rate * (gradient + momentum * velocity if nesterov else velocity)
        places.append(w)
    return np.stack(places)


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", False), ("sgd", True), ("sgd-2012", False)])
def test_make_optimizer_equals_the_loop_of_the_paper(name, nesterov):
    config = OptimizerConfig(
        name=name, learning_rate=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.3, **FALLING
    )
    expected = sgd_by_numpy(FALLING_RATES, 0.9, 0.3, name == "sgd-2012", nesterov)
    chex.assert_trees_all_close(matrix_path(config), expected, rtol=1e-5, atol=1e-6)


def test_make_optimizer_sgd_2012_differs_when_the_rate_changes():
    config = OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=0.3)
    inside = dataclasses.replace(config, name="sgd-2012")
    chex.assert_trees_all_close(matrix_path(config), matrix_path(inside), rtol=1e-5, atol=1e-6)
    config, inside = (dataclasses.replace(c, **FALLING) for c in (config, inside))
    assert np.abs(matrix_path(config) - matrix_path(inside)).max() > 0.1


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.3},
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.3, "nesterov": True},
        {"name": "adamw", "weight_decay": 0.3},
    ],
)
def test_make_optimizer_equals_pytorch(fields):
    torch = pytest.importorskip("torch")
    rules = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    kwargs = {name: value for name, value in fields.items() if name != "name"}
    weight = torch.nn.Parameter(torch.tensor(START))
    rule, expected = rules[fields["name"]]([weight], lr=0.1, **kwargs), []
    for rate, grad in zip(FALLING_RATES, GRADS, strict=True):
        rule.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor(grad)
        rule.step()
        expected.append(weight.detach().numpy().copy())
    places = matrix_path(OptimizerConfig(learning_rate=0.1, **fields, **FALLING))
    chex.assert_trees_all_close(places, np.stack(expected), rtol=1e-4, atol=1e-6)


def is_moved(config, grad):
    grads = jax.tree.map(lambda leaf: np.full_like(leaf, grad), PARAMS)
    return jax.tree.map(lambda leaf: bool((leaf != 1).all()), matrix_path(config, [grads], PARAMS))


@pytest.mark.parametrize("name", ["adamw", "sgd", "sgd-2012"])
def test_make_optimizer_decays_matrices_only_unless_asked(name):
    config = OptimizerConfig(name=name, learning_rate=0.1, weight_decay=0.1)
    layer = {"kernel": True, "bias": False}
    expected = {"dense": layer, "local": layer, "pool": {"coefficient": False}}
    assert is_moved(config, 0.0) == expected
    everything = jax.tree.map(lambda _: True, PARAMS)
    assert is_moved(dataclasses.replace(config, decay_biases=True), 0.0) == everything


@pytest.mark.parametrize("name", ["adamw", "sgd", "sgd-2012"])
def test_make_optimizer_decays_layers_by_their_own(name):
    config = OptimizerConfig(
        name=name, learning_rate=0.1, weight_decay=0.25, layer_decays=(("local", 2.0),)
    )
    zeros = jax.tree.map(np.zeros_like, PARAMS)
    places = matrix_path(config, [zeros], PARAMS)
    chex.assert_trees_all_close(places["dense"]["kernel"], np.full((1, 2, 2), 1 - 0.1 * 0.25))
    chex.assert_trees_all_close(places["local"]["kernel"], np.full((1, 2, 2, 3), 1 - 0.1 * 2))
    chex.assert_trees_all_equal(places["local"]["bias"], np.ones((1, 2, 2, 3), np.float32))
    none = dataclasses.replace(config, layer_decays=(("local", 0.0),))
    layer = {"kernel": False, "bias": False}
    assert is_moved(none, 0.0)["local"] == layer
    alone = dataclasses.replace(config, weight_decay=0.0, decay_biases=True)
    layer = {"kernel": True, "bias": True}
    expected = jax.tree.map(lambda _: False, PARAMS) | {"local": layer}
    assert is_moved(alone, 0.0) == expected


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "sgd-2012", "diagonal-lm"])
def test_make_optimizer_gives_biases_their_own_rate(name):
    decay = 0.1 if name not in ("adam", "diagonal-lm") else 0.0
    config = OptimizerConfig(
        name=name, learning_rate=1e-2, bias_rate=2.0, weight_decay=decay, decay_biases=True
    )
    alone = dataclasses.replace(config, bias_rate=1.0)
    twice = dataclasses.replace(config, bias_rate=1.0, learning_rate=2e-2)
    grads = [jax.tree.map(lambda leaf, i=i: leaf * i, PARAMS) for i in (1.0, -3.0, 2.0)]
    ours, once, double = (matrix_path(c, grads, PARAMS) for c in (config, alone, twice))
    for layer, leaves in ours.items():
        for leaf in leaves:
            expected = (double if leaf == "bias" else once)[layer][leaf]
            chex.assert_trees_all_close(leaves[leaf], expected, rtol=1e-5)


def test_make_optimizer_clips_gradients_together_first():
    config = OptimizerConfig(
        name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=5.0, weight_decay=0.1
    )
    params = {"a": np.zeros((1, 1), np.float32), "b": np.full((1, 1), 10, np.float32)}
    grads = {"a": np.full((1, 1), 6, np.float32), "b": np.full((1, 1), 8, np.float32)}
    places = matrix_path(config, [grads], params)  # 6 and 8 become 3 and 4
    assert (places["a"].item(), places["b"].item()) == (-3, 10 - 4 - 1)
    grads = jax.tree.map(lambda leaf: leaf / 2, grads)
    assert matrix_path(config, [grads], params)["a"].item() == -3  # norm 5 is not clipped


def test_make_optimizer_accumulates_the_mean_of_gradients():
    config = OptimizerConfig(
        name="sgd",
        learning_rate=0.1,
        schedule="linear",
        warmup_epochs=1.0,
        clip_norm=1.0,
        weight_decay=0.1,
        bias_rate=2.0,
    )
    means = GRADS.reshape(4, 2, 2, 3).mean(1)
    twice = dataclasses.replace(config, accumulate=2)
    schedule = make_schedule(twice, steps_per_epoch=4, total_steps=8)
    of_means = make_schedule(config, steps_per_epoch=2, total_steps=4)
    rates = [float(of_means(update)) for update in range(4)]
    assert [float(schedule(step)) for step in range(8)] == list(np.repeat(rates, 2))
    assert rates == pytest.approx([0, 0.05, 0.1, 0.05])

    def final(config, schedule, grads):
        tx = make_tx(config, schedule, ema_decay=0.9)
        params, state = jnp.asarray(START), tx.init(START)
        for grad in grads:
            updates, state = tx.update(grad, state, params)
            params = optax.apply_updates(params, updates)
        return params, optax.tree_utils.tree_get(state, "ema_params")

    expected = final(config, of_means, means)
    chex.assert_trees_all_close(final(twice, schedule, GRADS), expected, rtol=1e-6)
    unchanged = final(twice, schedule, GRADS[:1])
    chex.assert_trees_all_equal(unchanged, (START, START))


def test_make_optimizer_keeps_the_curvature_settable():
    config = OptimizerConfig(
        name="diagonal-lm", learning_rate=1.0, mu=1.0, clip_norm=9.0, accumulate=2, bias_rate=2.0
    )
    tx = make_tx(config, lambda _: 1.0, ema_decay=0.9)
    params = {"bias": jnp.zeros(1)}
    state = optax.tree_utils.tree_set(tx.init(params), curvature={"bias": jnp.array([3.0])})
    for expected in (0, -2):  # 2 x 4 / (1 + 3)
        updates, state = tx.update({"bias": jnp.array([4.0])}, state, params)
        assert updates["bias"].item() == expected


@pytest.mark.parametrize("decay", [0.1, 0.3, 0.999])
def test_average_parameters_follows_the_updates(decay):
    tx = optax.chain(optax.sgd(0.1, 0.9), average_parameters(decay))
    params, expected = jnp.asarray(START), START.astype(float)
    state = tx.init(params)
    for t, grad in enumerate(GRADS, start=1):
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * np.asarray(params)
        average = optax.tree_utils.tree_get(state, "ema_params")
        chex.assert_trees_all_close(average, expected, rtol=1e-5, atol=1e-6)
    plain = optax.sgd(0.1, 0.9)
    plain_updates, _ = plain.update(GRADS[0], plain.init(START), START)
    first_updates, _ = tx.update(GRADS[0], tx.init(START), START)
    chex.assert_trees_all_equal(first_updates, plain_updates)


TWO_LAYERS = jax.tree.map(jnp.asarray, {name: PARAMS["dense"] for name in ("conv1", "fc8")})


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(),
        OptimizerConfig(name="sgd", weight_decay=0.1, clip_norm=1.0, accumulate=2, bias_rate=2.0),
    ],
)
def test_make_optimizer_keeps_frozen_layers_without_a_state(config):
    tx = make_tx(config, lambda _: 0.1, ema_decay=0.9, frozen=("conv1",))
    alone = make_tx(config, lambda _: 0.1, ema_decay=0.9)
    params, state = TWO_LAYERS, tx.init(TWO_LAYERS)
    fc8 = {"fc8": TWO_LAYERS["fc8"]}
    fc8_state = alone.init(fc8)
    chex.assert_trees_all_equal_shapes(jax.tree.leaves(state), jax.tree.leaves(fc8_state))
    for _ in range(4):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
        updates, fc8_state = alone.update(fc8, fc8_state, fc8)
        fc8 = optax.apply_updates(fc8, updates)
    chex.assert_trees_all_equal(params, {"conv1": TWO_LAYERS["conv1"], **fc8})


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_make_optimizer_gives_layers_their_own_rate(name):
    config = OptimizerConfig(name=name, layer_rates=(("fc8", 10.0),))
    tx = make_tx(config, lambda _: 0.1)
    updates, _ = tx.update(TWO_LAYERS, tx.init(TWO_LAYERS), TWO_LAYERS)
    expected = jax.tree.map(lambda update: 10 * update, updates["conv1"])
    chex.assert_trees_all_close(updates["fc8"], expected, rtol=1e-6)
