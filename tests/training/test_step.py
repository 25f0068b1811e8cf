"""Training and evaluation of one batch: losses, metric sums, updates, randomness."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import Tiny, new_state, tiny_train_set

from jaxcnn.models import MODELS
from jaxcnn.optim.optimizers import average_parameters
from jaxcnn.presets import PRESETS
from jaxcnn.training import step
from jaxcnn.training.experiment import Experiment

BATCH_SIZE = 4
KEY = jax.random.key(1)


def to_pixels(images):
    return images / 255.0


def a_batch(rows=slice(BATCH_SIZE)):
    images, labels = tiny_train_set()
    return {"image": to_pixels(jnp.asarray(images[rows])), "label": jnp.asarray(labels[rows])}


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[1.0, 3.0], [1.0, 1.0]]))
    losses = step.cross_entropy(logits, jnp.array([1, 0]))
    chex.assert_trees_all_close(losses, jnp.log(jnp.array([4 / 3, 2.0])), rtol=1e-6)


def test_smoothed_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[1.0, 3.0, 4.0]]))
    loss = step.smoothed_cross_entropy(logits, jnp.array([1]), smoothing=0.3)
    expected = 0.8 * np.log(8 / 3) + 0.1 * np.log(8) + 0.1 * np.log(8 / 4)
    chex.assert_trees_all_close(loss, np.float32([expected]), rtol=1e-6)


def test_smoothed_cross_entropy_equals_pytorch_in_float32():
    torch = pytest.importorskip("torch")
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(jnp.bfloat16)
    labels = np.arange(5)
    torchs = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    expected = torchs(torch.tensor(logits.astype(np.float32)), torch.tensor(labels)).numpy()
    losses = step.smoothed_cross_entropy(jnp.asarray(logits), jnp.asarray(labels), smoothing=0.1)
    assert losses.dtype == jnp.float32
    chex.assert_trees_all_close(losses, expected, rtol=1e-5)


def test_balanced_weights_are_inverse_to_the_sizes_of_classes():
    weights = step.balanced_weights(np.array([0, 0, 0, 2]), 3)
    assert weights == pytest.approx((4 / 9, 4 / 3, 4 / 3))  # a class without examples counts as one
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    weights = np.array(step.balanced_weights(labels, 3))
    assert weights[labels].mean() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(labels) * weights, [10 / 3] * 3)


def test_train_step_weights_the_loss_of_a_class_and_eval_step_does_not():
    batch = a_batch() | {"label": jnp.array([0, 1, 1, 2])}
    tx = optax.sgd(0.1)
    create = functools.partial(step.create_state, Tiny(), tx, (4, 4, 1), jax.random.key(0))
    plain, weighted = create(), create(class_weights=(3.0, 1.0, 0.0))
    assert weighted.loss_fn is create(class_weights=(3.0, 1.0, 0.0)).loss_fn  # jit's key
    # As if the first example were there three times, and the last not at all.
    repeated = jax.tree.map(lambda x: x[np.array([0, 0, 0, 1, 2])], batch)
    train_step, eval_step = jax.jit(step.train_step), jax.jit(step.eval_step)
    expected, expected_metrics = train_step(plain, repeated, KEY)
    actual, metrics = train_step(weighted, batch, KEY)
    updates = [
        jax.tree.map(jnp.subtract, state.params, plain.params) for state in (actual, expected)
    ]
    scaled = jax.tree.map(lambda leaf: leaf * jnp.float32(5 / 4), updates[1])  # of 5, of 4 examples
    chex.assert_trees_all_close(updates[0], scaled, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(metrics["loss"], expected_metrics["loss"], rtol=1e-5)
    masked = batch | {"mask": jnp.ones(BATCH_SIZE, bool)}
    chex.assert_trees_all_equal(eval_step(plain, masked), eval_step(weighted, masked))


def test_train_step_smooths_labels_and_eval_step_does_not():
    batch, mask = a_batch(), {"mask": jnp.ones(BATCH_SIZE, bool)}
    create = functools.partial(step.create_state, Tiny(), optax.sgd(0.0), (4, 4, 1))
    plain, smoothed = (create(jax.random.key(0), label_smoothing=x) for x in (0.0, 0.5))
    logits = Tiny().apply({"params": plain.params}, batch["image"])
    trained = step.smoothed_cross_entropy(logits, batch["label"], smoothing=0.5).sum()
    _, metrics = step.train_step(smoothed, batch, KEY)
    chex.assert_trees_all_close(metrics["loss"], trained, rtol=1e-6)
    evaluated = [step.eval_step(state, batch | mask)["loss"] for state in (plain, smoothed)]
    assert evaluated[0] == evaluated[1] != trained


def test_eval_step_uses_the_averaged_parameters():
    tx = optax.chain(optax.sgd(1.0), average_parameters(0.9))
    batch = a_batch() | {"mask": jnp.ones(BATCH_SIZE, bool)}
    state = new_state(Tiny(), tx)
    chex.assert_trees_all_equal(state.eval_params, state.params)
    train_step, eval_step = jax.jit(step.train_step), jax.jit(step.eval_step)
    for _ in range(3):
        state, _ = train_step(state, batch, KEY)
    mean = optax.tree_utils.tree_get(state.opt_state, "ema_params")
    chex.assert_trees_all_equal(state.eval_params, mean)
    alone = new_state(Tiny()).replace(params=mean)
    assert alone.eval_params is mean
    assert eval_step(state, batch)["loss"] == eval_step(alone, batch)["loss"]
    assert eval_step(state, batch)["loss"] != train_step(state, batch, KEY)[1]["loss"]


def test_train_step_is_the_update_of_optax_by_the_mean_loss():
    tx, batch = optax.adam(0.1), a_batch()
    state = new_state(Tiny(), tx)

    def mean_loss(params):
        logits = Tiny().apply({"params": params}, batch["image"])
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], 1).mean()

    updates, opt_state = tx.update(jax.grad(mean_loss)(state.params), state.opt_state)
    updated, metrics = jax.jit(step.train_step)(state, batch, KEY)
    chex.assert_trees_all_close(
        updated.params, optax.apply_updates(state.params, updates), atol=1e-6
    )
    chex.assert_trees_all_close(updated.opt_state, opt_state, atol=1e-6)
    assert (int(state.step), int(updated.step)) == (0, 1)
    chex.assert_trees_all_close(metrics["loss"], BATCH_SIZE * mean_loss(state.params), rtol=1e-6)


def test_train_step_learns():
    state, batch = new_state(Tiny()), a_batch()
    train_step, losses = jax.jit(step.train_step), []
    for _ in range(40):
        state, metrics = train_step(state, batch, KEY)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 10
    assert int(metrics["correct"]) == int(metrics["count"]) == BATCH_SIZE


def test_eval_step_sums_over_the_examples_in_the_mask():
    state, num_examples = new_state(Tiny()), 6
    batch = a_batch(slice(num_examples)) | {"mask": jnp.array([1, 0, 1, 1, 0, 1], bool)}
    masked = jnp.array([1, 4])
    batch["image"] = batch["image"].at[masked].set(jnp.nan)
    batch["label"] = batch["label"].at[masked].set(0)  # what the largest of three NaNs is
    eval_step = jax.jit(step.eval_step)
    alone = [eval_step(state, jax.tree.map(lambda x, i=i: x[i][None], batch)) for i in (0, 2, 3, 5)]
    chex.assert_trees_all_close(
        eval_step(state, batch), jax.tree.map(lambda *x: sum(x), *alone), rtol=1e-6
    )
    assert [int(metrics["count"]) for metrics in alone] == [1, 1, 1, 1]


def test_train_step_draws_from_the_key_and_the_step():
    state, batch = new_state(Tiny(dropout=0.5)), a_batch()

    def params(state, key):
        return step.train_step(state, batch, key)[0].params["Dense_0"]["kernel"]

    later = state.replace(step=state.step + 1)
    first, again, other_key, other_step = (
        jax.jit(params)(*arguments)
        for arguments in ((state, KEY), (state, KEY), (state, jax.random.key(2)), (later, KEY))
    )
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first, other_key)
    assert not np.array_equal(first, other_step)


class Slope(nn.Module):
    """Everything it says is w; its loss is w times the label."""

    @nn.compact
    def __call__(self, images, *, train=False):
        w = self.param("w", nn.initializers.ones, ())
        return jnp.broadcast_to(w, (len(images), 6))

    def loss_fn(self, outputs, labels):
        return outputs[:, 0] * labels


def test_train_step_minimizes_the_loss_of_the_model():
    state = new_state(Slope(), optax.sgd(1.0))
    batch = {"image": jnp.zeros((4, 4, 4, 1)), "label": jnp.array([0, 1, 2, 5])}
    updated, metrics = jax.jit(step.train_step)(state, batch, KEY)
    assert float(metrics["loss"]) == 8
    assert float(updated.params["w"]) == 1 - 8 / 4
    assert float(step.eval_step(updated, batch | {"mask": jnp.ones(4, bool)})["loss"]) == -8


class Says(nn.Module):
    """The logits are the pixels."""

    @nn.compact
    def __call__(self, images, *, train=False):
        self.param("unused", nn.initializers.zeros, ())
        return images.reshape(len(images), -1)


def test_predict_log_probs_averages_the_probabilities_of_views():
    probabilities = np.array(
        [
            # Two views of each of two examples. Of the first, the mean of the logits would be
            # class 1's; of the second, the first view alone.
            [[0.90, 0.09, 0.01], [0.01, 0.45, 0.54]],
            [[0.30, 0.60, 0.10], [0.10, 0.10, 0.80]],
        ],
        np.float32,
    )
    state = step.create_state(Says(), optax.sgd(1.0), (3, 1, 1), jax.random.key(0))
    images = jnp.log(probabilities).reshape(4, 3, 1, 1) + 5  # what is added to logits says nothing
    mean = probabilities.mean(1)
    assert mean.argmax(-1).tolist() == [0, 2]
    log_probs = step.predict_log_probs(state, images, 2)
    chex.assert_trees_all_close(log_probs, np.log(mean), rtol=1e-5)
    batch = {"image": images, "label": jnp.array([0, 1]), "mask": jnp.ones(2, bool)}
    metrics = step.eval_step(state, batch)
    assert (int(metrics["correct"]), int(metrics["count"])) == (1, 2)
    expected = -np.log(mean[0, 0]) - np.log(mean[1, 1])
    chex.assert_trees_all_close(metrics["loss"], expected, rtol=1e-5)


@pytest.mark.slow
def test_predict_log_probs_of_1998_leaves_room_for_no_class():
    model = MODELS["lenet5-1998"]()
    state = step.create_state(model, optax.sgd(1.0), (28, 28, 1), jax.random.key(0))
    images = jax.random.normal(KEY, (2, 28, 28, 1))
    outputs = jax.device_get(jax.jit(model.apply)({"params": state.params}, images))
    with_rubbish = np.concatenate([outputs, np.full((2, 1), -model.j)], axis=1)
    expected = jax.nn.log_softmax(with_rubbish)[:, :10]
    actual = jax.jit(step.predict_log_probs)(state, images)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5)


def test_train_transfers_nothing_implicitly(monkeypatch):
    monkeypatch.setitem(MODELS, "tiny", Tiny)
    preset = PRESETS["lenet5-mnist5k"].config
    config = dataclasses.replace(preset, model="tiny", compilation_cache=False)
    experiment = Experiment(config)
    carry = experiment.train(experiment.state, experiment.no_metrics(), 1)
    with jax.transfer_guard("disallow"):
        state, metrics = experiment.train(*carry, 3)
    assert int(state.step) == 3 and int(metrics["count"]) == 3 * config.batch_size


def test_mean_metrics_divides_once_on_the_host():
    metrics = {"loss": jnp.float32(6), "correct": jnp.int32(3), "count": jnp.int32(4)}
    means = step.mean_metrics(metrics)
    assert means == {"loss": 1.5, "accuracy": 0.75}
    assert {type(value) for value in means.values()} == {float}
