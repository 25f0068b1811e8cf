"""A batch in parts gives what the whole batch gives, and is cut where that is worth it."""

import functools
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.distributed import mesh
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.training import microbatch, step

KEY = jax.random.key(1)


def microbatch_size(name, batch_size, devices, *, train=True, **options):
    model, image_shape = MODELS[name](), IMAGE_SHAPES[name]
    init = functools.partial(model.init, images=jnp.zeros((1, *image_shape)))
    params = jax.eval_shape(init, jax.random.key(0))["params"]
    images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
    return microbatch.choose_size(model.apply, params, images, devices, train=train, **options)


@pytest.mark.parametrize(
    ("name", "batch_size", "size"),
    [
        ("lenet5", 128, 128),
        ("lenet5", 512, 128),
        ("lenet5-modern", 512, 64),
        ("cuda-convnet-18pct", 128, 32),
        ("cuda-convnet-18pct", 127, 32),  # a prime number
        ("alexnet-32", 128, 32),
        ("alexnet-32", 31, 31),
        ("alexnet", 512, 512),
    ],
)
def test_choose_size_gives_the_fastest_microbatches(name, batch_size, size):
    assert microbatch_size(name, batch_size, {jax.devices()[0]}) == size


@pytest.mark.parametrize(
    ("name", "batch_size", "size"),
    [("alexnet", 64, 2), ("alexnet", 1, 1), ("alexnet-2012", 7, 2), ("alexnet-32", 128, 32)],
)
def test_choose_size_saves_memory_in_inference(name, batch_size, size):
    assert microbatch_size(name, batch_size, {jax.devices()[0]}, train=False) == size


@pytest.mark.parametrize(
    ("name", "share", "size"),
    [
        ("lenet5", 32, 32),
        ("lenet5", 250, 32),
        ("lenet5-1998", 256, 32),
        ("lenet5-modern", 64, 8),
        ("cuda-convnet-18pct", 64, 4),
        ("cuda-convnet-18pct", 50, 5),
        ("cuda-convnet-26pct", 64, 4),
        ("cuda-convnet-13pct", 64, 16),
        ("cuda-convnet-11pct", 64, 16),
        ("alexnet-32", 64, 16),
        ("alexnet-32", 50, 10),
        ("alexnet", 256, 256),
    ],
)
def test_choose_size_fits_the_cache_of_one_core(name, share, size):
    devices = {jax.devices()[0]}
    assert microbatch_size(name, share, devices, on_one_core=True) == size


@pytest.mark.parametrize(
    ("name", "size"),
    [("lenet5", 32), ("lenet5-modern", 5), ("cuda-convnet-18pct", 4), ("alexnet-32", 16)],
)
def test_choose_size_is_smaller_in_inference_on_one_core(name, size):
    devices = {jax.devices()[0]}
    assert microbatch_size(name, 160, devices, train=False, on_one_core=True) == size


@pytest.mark.parametrize(
    ("batch_size", "size"),
    [
        (0, 0),
        (1, 1),
        (5, 5),
        (6, 16),
        (16, 16),
        (17, 16),
        (18, 32),
        (31, 32),
        (33, 32),
        (100, 112),
        (250, 128),
        (1009, 144),
    ],
)
def test_choose_size_fills_vectors_of_images(batch_size, size):
    assert microbatch_size("lenet5", batch_size, {jax.devices()[0]}) == size


def test_choose_size_keeps_a_batch_whole_on_devices_and_accelerators():
    class Accelerator:
        platform = "tpu"

    for devices in ({*jax.devices()}, {Accelerator()}):
        assert microbatch_size("lenet5", 500, devices) == 500


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


@pytest.mark.parametrize(("size", "shape"), [(2, (4, 2)), (3, (2, 3)), (4, (2, 4)), (9, (1, 9))])
def test_one_image_is_left_over_except_of_pairs(size, shape):
    parts, alone = microbatch.split(np.arange(7), size)
    assert parts.shape == shape and alone.tolist() == ([6] if size == 3 else [])


@pytest.mark.parametrize("size", [1, 4, 5, 6, 7, 11, 13, 40])
def test_steps_in_microbatches_equal_the_whole_batch(size):
    state, batch = a_state(), a_batch(12)

    @functools.partial(jax.jit, static_argnums=0)
    def results(size):
        update = step.train_step(state, batch, KEY, microbatch_size=size)
        variables = {"params": state.params}
        outputs = microbatch.apply(state.apply_fn, variables, batch["image"], size=size or 12)
        return update, outputs

    chex.assert_trees_all_close(results(size), results(None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4, 5, 11, 12, 40])
@pytest.mark.parametrize("num_devices", [1, 2])
def test_evaluation_on_devices_equals_that_of_the_whole_batch(size, num_devices, monkeypatch):
    monkeypatch.setattr(microbatch, "choose_size", lambda *_, **__: size)
    devices = jax.sharding.Mesh(jax.devices()[:num_devices], ("data",))
    state, images = a_state(), a_batch(24)["image"]  # two views of each example
    batch = a_batch(12) | {"image": images}

    @functools.partial(jax.jit, static_argnums=0)
    def results(sharding):
        evaluation = step.eval_step(state, batch, sharding=sharding)
        return evaluation, step.predict_log_probs(state, images, 2, sharding=sharding)

    on_devices = results(mesh.batch_sharding(devices))
    chex.assert_trees_all_close(on_devices, results(None), rtol=1e-5, atol=1e-6)


class LargeLayer(nn.Module):
    """A network whose dense layer reads each image as one or more rows."""

    rows: int
    lift: Callable[[Any], Any]

    @nn.compact
    def __call__(self, images):
        x = jnp.sin(nn.Conv(2, (3, 3))(images)).reshape(len(images) * self.rows, -1)
        x = nn.tanh(self.lift(nn.Dense)(7)(x)).reshape(len(images), -1)
        return nn.Dense(3)(x)


@pytest.mark.parametrize("batch_size", [11, 12])
@pytest.mark.parametrize(
    ("rows", "lift", "is_whole"),
    [(1, lambda layer: layer, True), (2, lambda layer: layer, False), (1, nn.remat, False)],
)
def test_a_large_layer_takes_the_whole_batch(batch_size, rows, lift, is_whole, monkeypatch):
    monkeypatch.setattr(microbatch, "MAX_PARAMS_BYTES", 7 * 16 * 4 - 1)
    model, images = LargeLayer(rows, lift), jax.random.normal(KEY, (batch_size, 4, 4, 2))
    variables = model.init(KEY, images)

    @jax.jit
    def outputs(variables, images):
        return microbatch.apply(model.apply, variables, images, size=5)

    expected = model.apply(variables, images)
    chex.assert_trees_all_close(outputs(variables, images), expected, rtol=1e-5, atol=1e-6)
    program = outputs.lower(variables, images).compile().as_text()
    sizes = [size for size in (5, batch_size) if f"f32[{size * rows},7]" in program]
    assert sizes == ([batch_size] if is_whole else [5])
    assert set(re.findall(r"f32\[(\d+),\S* sine\(", program)) - {"1"} == {"5"}  # microbatches


class LargeLayerOfParameters(nn.Module):
    """A network whose large dense layer reads two rows of parameters, as many as a microbatch."""

    @nn.compact
    def __call__(self, images):
        rows = nn.Dense(32)(self.param("rows", nn.initializers.normal(1), (2, 16)))
        return jnp.tanh(images.reshape(len(images), -1)) @ rows.T


def test_a_large_layer_may_read_parameters(monkeypatch):
    monkeypatch.setattr(microbatch, "MAX_PARAMS_BYTES", 32 * 16 * 4 - 1)
    model, images = LargeLayerOfParameters(), jax.random.normal(KEY, (6, 4, 4, 2))
    variables = model.init(KEY, images)
    outputs = microbatch.apply(model.apply, variables, images, size=2)
    chex.assert_trees_all_close(outputs, model.apply(variables, images), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_train_step_drops_out_other_units_in_each_microbatch():
    state, batch = a_state(dropout=0.5), a_batch(6)
    _, metrics = step.train_step(state, batch, KEY, microbatch_size=3)
    keys = jax.random.split(jax.random.fold_in(KEY, 0), 2)
    losses = []
    for rows, key in zip((slice(3), slice(3, 6)), keys, strict=True):
        images, labels = batch["image"][rows], batch["label"][rows]
        variables = {"params": state.params}
        logits = Tiny(0.5).apply(variables, images, train=True, rngs={"dropout": key})
        losses.append(step.cross_entropy(logits, labels).sum())
    chex.assert_trees_all_close(metrics["loss"], sum(losses), rtol=1e-5)
