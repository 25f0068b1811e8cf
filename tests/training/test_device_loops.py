"""Loops over a resident dataset: chunks of steps, exact evaluation, predictions in order."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import Tiny, new_state, tiny_train_set

from jaxcnn.distributed import mesh
from jaxcnn.optim.optimizers import average_parameters
from jaxcnn.training import device_loops, microbatch, step
from jaxcnn.training.step import create_state

NUM_EXAMPLES, NUM_CLASSES = 11, 3
BATCH_SIZE = 4  # of tiny_train_set: four steps an epoch, two examples left over
ORDER = np.random.default_rng(2).permutation(18)
KEY = jax.random.key(1)
KEYS = jax.random.key(2), KEY  # of the images, and of the step


class Linear(nn.Module):
    @nn.compact
    def __call__(self, images, *, train=False):
        return nn.Dense(NUM_CLASSES)(images.reshape(len(images), -1))


@pytest.fixture(scope="module")
def test_set():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(NUM_EXAMPLES, 2, 3, 1), dtype=np.uint8)
    return images, rng.integers(NUM_CLASSES, size=NUM_EXAMPLES, dtype=np.int32)


@pytest.fixture(scope="module")
def state():
    return create_state(Linear(), optax.sgd(1.0), (2, 3, 1), jax.random.key(0))


@pytest.fixture(scope="module")
def logits(state, test_set):
    """All at once, in NumPy."""
    dense = jax.tree.map(np.asarray, state.params["Dense_0"])
    return (test_set[0] / 255).reshape(NUM_EXAMPLES, -1) @ dense["kernel"] + dense["bias"]


def jitted(function, batch_size, preprocess=lambda x: x / 255.0):
    sharding = mesh.batch_sharding(mesh.device_mesh())
    arguments = {"preprocess": preprocess, "sharding": sharding, "batch_size": batch_size}
    return jax.jit(functools.partial(function, **arguments))


# Smaller than the set, of its size but for one, and larger.
@pytest.mark.parametrize("batch_size", [2, 4, 10, 12, 64])
def test_evaluate_counts_each_example_once(batch_size, state, test_set, logits):
    labels = test_set[1]
    metrics = jitted(device_loops.evaluate, batch_size)(state, *test_set)
    assert int(metrics["count"]) == NUM_EXAMPLES
    assert int(metrics["correct"]) == (logits.argmax(-1) == labels).sum()
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(NUM_EXAMPLES), labels]
    chex.assert_trees_all_close(metrics["loss"], np.float32(losses.sum()), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_evaluate_averages_the_views_of_each_example(batch_size, state, test_set):
    def two_views(images):
        return jnp.stack([images, 255 - images], axis=1).reshape(-1, 2, 3, 1) / 255.0

    one, other = (
        jax.nn.softmax(state.apply_fn({"params": state.params}, images / 255.0))
        for images in (test_set[0], 255 - test_set[0])
    )
    predictions = jnp.log((one + other) / 2)
    metrics = jitted(device_loops.evaluate, batch_size, two_views)(state, *test_set)
    of_labels = predictions[np.arange(NUM_EXAMPLES), test_set[1]]
    chex.assert_trees_all_close(metrics["loss"], -of_labels.sum(), rtol=1e-5)
    assert int(metrics["count"]) == NUM_EXAMPLES


def no_metrics():
    return mesh.replicate(step.zero_metrics(), mesh.device_mesh())


def to_pixels(images):
    return images.astype(jnp.float32) / 255


def noisy(key, images):
    return to_pixels(images) + 0.1 * jax.random.normal(key, images.shape)


def jitted_steps(preprocess=noisy, devices=None, **options):
    both = mesh.device_mesh() if devices is None else jax.sharding.Mesh(devices, ("data",))
    return jax.jit(
        functools.partial(
            device_loops.train_steps,
            preprocess=preprocess,
            batch_size=BATCH_SIZE,
            sharding=mesh.batch_sharding(both),
            **options,
        )
    )


@pytest.fixture(scope="module")
def program():
    return jitted_steps()


def test_train_steps_gives_the_same_bits_in_any_chunks(program):
    carry = state, zero = new_state(Tiny(dropout=0.5)), no_metrics()
    whole = program(state, zero, *tiny_train_set(), ORDER, jnp.int32(4), KEYS)
    for stop in (1, 3, 4):
        carry = program(*carry, *tiny_train_set(), ORDER, jnp.int32(stop), KEYS)
        assert int(carry[0].step) == stop
    chex.assert_trees_all_equal(carry, whole)


def test_train_steps_is_train_step_over_the_order(program):
    images, labels = tiny_train_set()
    state = expected = new_state(Tiny(dropout=0.5)).replace(step=jnp.int32(8))  # third epoch
    expected_metrics, train_step = no_metrics(), jax.jit(step.train_step)
    for first in (0, 4, 8):
        rows = ORDER[first : first + BATCH_SIZE]
        image = noisy(jax.random.fold_in(KEYS[0], expected.step), jnp.asarray(images[rows]))
        batch = {"image": image, "label": labels[rows]}
        expected, metrics = train_step(expected, batch, KEY)
        expected_metrics = jax.tree.map(jnp.add, expected_metrics, metrics)
    state, metrics = program(state, no_metrics(), images, labels, ORDER, jnp.int32(11), KEYS)
    assert int(state.step) == 11 and int(metrics["count"]) == 12
    chex.assert_trees_all_close((state, metrics), (expected, expected_metrics), atol=1e-5)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="needs a CPU")
def test_train_steps_stores_the_images_of_a_step_on_a_cpu():
    carry = jax.device_get((new_state(Tiny()), no_metrics()))
    arguments = *carry, *tiny_train_set(), ORDER, jnp.int32(1), KEYS
    text = jitted_steps(devices=jax.devices()[:1]).lower(*arguments).as_text()
    assert text.count("stablehlo.optimization_barrier") == 1


def test_train_steps_traces_chunks_of_any_length_once():
    program = jitted_steps(chex.assert_max_traces(noisy, n=1))
    carry = new_state(Tiny()), no_metrics()
    for stop in (1, 2, 4):
        carry = program(*carry, *tiny_train_set(), ORDER, jnp.int32(stop), KEYS)
    assert int(carry[0].step) == 4


def poison(_, images):
    return jnp.where(images == 255, jnp.inf, to_pixels(images))


@pytest.mark.parametrize("size", [BATCH_SIZE, pytest.param(3, marks=pytest.mark.slow)])
def test_train_steps_skips_a_step_that_is_not_finite(size, monkeypatch):
    monkeypatch.setattr(microbatch, "choose_size", lambda *_, **__: size)
    images, labels = tiny_train_set()
    images[ORDER[9]] = 255  # in the third step
    rule = optax.chain(optax.adam(0.1), average_parameters(0.9))
    state = new_state(Tiny(filters=4), optax.MultiSteps(rule, 2).gradient_transformation())
    results = []
    for skip_nonfinite in (False, True):
        program = jitted_steps(poison, skip_nonfinite=skip_nonfinite)
        steps = functools.partial(program, labels=labels, images=images, order=ORDER, keys=KEYS)
        carry = state, no_metrics()
        if not skip_nonfinite:
            carry = steps(*carry, stop=jnp.int32(2))
            carry = carry[0].replace(step=jnp.int32(3)), carry[1]
        results.append(steps(*carry, stop=jnp.int32(4)))
    chex.assert_trees_all_equal(*results)
    assert int(results[1][1]["count"]) == 3 * BATCH_SIZE


def test_train_steps_stops_at_a_loss_that_is_not_finite():
    images, labels = tiny_train_set()
    images[ORDER[9]] = 255  # the third step's
    program, last = jitted_steps(poison), jnp.int32(4)
    carry = program(new_state(Tiny()), no_metrics(), images, labels, ORDER, last, KEYS)
    assert int(carry[0].step) == 3 and not np.isfinite(carry[1]["loss"])
    again = program(*carry, images, labels, ORDER, last, KEYS)
    chex.assert_trees_all_equal(again, carry)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_train_steps_is_the_same_on_two_devices(dropout):
    carry = jax.device_get((new_state(Tiny(filters=4, dropout=dropout)), no_metrics()))
    results = []
    for devices in (jax.devices()[:1], jax.devices()[:2]):
        arguments = *carry, *tiny_train_set(), ORDER, jnp.int32(4), KEYS
        program = jitted_steps(devices=devices).lower(*arguments).compile()
        assert ("all-reduce" in program.as_text()) == (len(devices) == 2)
        results.append(jax.device_get(program(*arguments)))
        if not dropout and len(devices) == 2:  # gradients and metrics together
            assert len(re.findall(r" all-reduce(-start)?\(", program.as_text())) == 1
    chex.assert_trees_all_close(*results, rtol=1e-6, atol=1e-6)


def test_train_steps_on_two_cores_in_microbatches_are_those_of_the_whole_batch(monkeypatch):
    arguments = new_state(Tiny(filters=4)), no_metrics(), *tiny_train_set(), ORDER
    results = []
    for size in (None, 1, 2, 3):
        monkeypatch.setattr(microbatch, "choose_size", lambda *_, **__: size)  # noqa: B023
        with jax.numpy_dtype_promotion("strict"):
            results.append(jitted_steps()(*arguments, jnp.int32(4), KEYS))
    chex.assert_trees_all_close(*results, rtol=1e-6, atol=1e-6)
