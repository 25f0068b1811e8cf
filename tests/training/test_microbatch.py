"""A batch in parts gives what the whole batch gives, and is cut where that is worth it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training import microbatch, step

KEY = jax.random.key(1)


def num_microbatches(name, batch_size, devices, **options):
    model, image_shape = MODELS[name](), IMAGE_SHAPES[name]
    init = functools.partial(model.init, images=jnp.zeros((1, *image_shape)))
    params = jax.eval_shape(init, jax.random.key(0))["params"]
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    return microbatch.choose_number(model.apply, params, images, devices, **options)


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
def test_choose_number_gives_the_fastest_microbatches(name, batch_size, part):
    assert num_microbatches(name, batch_size, {jax.devices()[0]}) * part == batch_size


@pytest.mark.parametrize(
    ("name", "share", "part"),
    [
        ("lenet5", 32, 32),
        ("lenet5", 256, 32),
        ("lenet5-1998", 256, 32),
        ("lenet5-modern", 64, 8),
        ("cuda-convnet-18pct", 64, 4),
        ("cuda-convnet-26pct", 64, 4),
        ("cuda-convnet-13pct", 64, 16),
        ("cuda-convnet-11pct", 64, 16),
        ("alexnet-32", 64, 16),
        ("alexnet", 256, 256),
    ],
)
def test_choose_number_fits_the_cache_of_one_core(name, share, part):
    devices = {jax.devices()[0]}
    assert num_microbatches(name, share, devices, on_one_core=True) * part == share


def test_choose_number_keeps_a_batch_whole_on_devices_and_accelerators():
    class Accelerator:
        platform = "tpu"

    for devices in ({*jax.devices()}, {Accelerator()}):
        assert num_microbatches("lenet5", 512, devices) == 1


class Tiny(nn.Module):
    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.tanh(nn.Dense(5)(images.reshape(len(images), -1)))
        return nn.Dense(3)(nn.Dropout(self.dropout, deterministic=not train)(x))


def a_state(**fields):
    return step.create_state(Tiny(**fields), optax.sgd(1.0), (4, 4, 1), jax.random.key(0))


def a_batch(batch_size):
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.normal(size=(batch_size, 4, 4, 1)), jnp.float32),
        "label": jnp.asarray(rng.integers(3, size=batch_size), jnp.int32),
        "mask": jnp.asarray(rng.integers(2, size=batch_size), bool),
    }


@pytest.mark.parametrize("number", [2, 3, 12])
def test_steps_in_microbatches_equal_the_whole_batch(number):
    state, batch = a_state(), a_batch(12)

    @functools.partial(jax.jit, static_argnums=0)
    def results(number):
        update = step.train_step(state, batch, KEY, num_microbatches=number)
        evaluation = step.eval_step(state, batch, num_microbatches=number)
        views = step.predict_log_probs(state, batch["image"], 2, num_microbatches=number)
        return update, evaluation, views

    chex.assert_trees_all_close(results(number), results(1), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_train_step_drops_out_other_units_in_each_microbatch():
    state, batch = a_state(dropout=0.5), a_batch(6)
    _, metrics = step.train_step(state, batch, KEY, num_microbatches=2)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    losses = []
    for rows, key in zip((slice(3), slice(3, 6)), keys, strict=True):
        images, labels = batch["image"][rows], batch["label"][rows]
        variables = {"params": state.params}
        logits = Tiny(0.5).apply(variables, images, train=True, rngs={"dropout": key})
        losses.append(step.cross_entropy(logits, labels).sum())
    chex.assert_trees_all_close(metrics["loss"], sum(losses), rtol=1e-5)
