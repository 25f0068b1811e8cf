"""A batch in parts gives what the whole batch gives, and is cut where that is worth it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import parts, step
from jaxcnn.models import MODELS
from jaxcnn.summary import IMAGE_SHAPES

CPU = {jax.devices()[0]}


def num_parts(name, batch_size, devices=CPU):
    model, image_shape = MODELS[name](), IMAGE_SHAPES[name]
    init = functools.partial(model.init, images=jnp.zeros((1, *image_shape)))
    params = jax.eval_shape(init, jax.random.key(0))["params"]
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    return parts.num_parts(model.apply, params, images, devices)


@pytest.mark.parametrize(
    ("name", "batch_size", "part"),
    [
        ("lenet5", 128, 128),
        ("lenet5", 512, 128),
        ("lenet5", 1000, 200),
        ("lenet5", 997, 997),  # a prime number
        ("lenet5-modern", 512, 64),
        ("cuda-convnet-18pct", 128, 32),
        ("alexnet-32", 128, 32),
        ("alexnet-32", 32, 32),
        ("alexnet", 512, 512),
    ],
)
def test_parts_have_the_images_that_were_fastest(name, batch_size, part):
    assert num_parts(name, batch_size) * part == batch_size


def test_a_batch_on_several_devices_or_another_platform_is_whole():
    class Accelerator:
        platform = "tpu"

    assert (
        num_parts("lenet5", 512, {*jax.devices()}) == num_parts("lenet5", 512, {Accelerator()}) == 1
    )


@pytest.fixture
def state():
    create = functools.partial(step.create_state, MODELS["lenet5-tanh"](), optax.sgd(1.0))
    return create((28, 28, 1), jax.random.key(0))


def a_batch(batch_size):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(batch_size, 28, 28, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(10, size=batch_size), jnp.int32),
        "mask": jnp.asarray(rng.integers(2, size=batch_size), bool),
    }


@pytest.mark.parametrize("number", [2, 3, 12])
def test_steps_in_parts_are_those_of_the_whole(number, state):
    batch, key = a_batch(12), jax.random.key(1)
    train_step = jax.jit(step.train_step, static_argnames="num_parts")
    eval_step = jax.jit(step.eval_step, static_argnames="num_parts")
    whole, whole_metrics = train_step(state, batch, key)
    in_parts, metrics = train_step(state, batch, key, num_parts=number)
    chex.assert_trees_all_close(in_parts.params, whole.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(metrics, whole_metrics, rtol=1e-5)
    evaluations = [eval_step(state, batch, num_parts=n) for n in (1, number)]
    chex.assert_trees_all_close(*evaluations, rtol=1e-5)
    log_probabilities = functools.partial(step.log_probabilities, state, batch["image"])
    two_views = [log_probabilities(6, num_parts=n) for n in (1, number)]
    chex.assert_trees_all_close(*two_views, rtol=1e-5)


def test_each_part_drops_out_anew():
    model = MODELS["alexnet-32"](dropout=0.5)
    state = step.create_state(model, optax.sgd(1.0), (32, 32, 3), jax.random.key(0))
    image = jnp.ones((1, 32, 32, 3))
    batch = {"image": jnp.tile(image, (2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}
    alone = jax.tree.map(lambda leaf: leaf[:1], batch)
    _, twice = step.train_step(state, batch, jax.random.key(1), num_parts=2)
    keys = jax.random.split(jax.random.fold_in(jax.random.key(1), 0), 2)
    losses = [
        state.loss_fn(
            model.apply({"params": state.params}, image, train=True, rngs={"dropout": key}),
            alone["label"],
        )
        for key in keys
    ]
    assert losses[0] != losses[1]
    chex.assert_trees_all_close(twice["loss"], sum(losses)[0], rtol=1e-5)
