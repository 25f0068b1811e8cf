"""Everything a config builds, and what an optimizer does before an epoch."""

import dataclasses
import functools
import shutil
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from helpers import Tiny

from jaxcnn import PRESETS, evaluate_run, train_and_evaluate
from jaxcnn.config import OptimizerConfig
from jaxcnn.data import augment, geometry
from jaxcnn.data.datasets import DATASETS, Dataset
from jaxcnn.data.preprocess import make_preprocess
from jaxcnn.data.transforms import RandomCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.models import MODELS
from jaxcnn.models.alexnet import MODEL_AXIS
from jaxcnn.optim.curvature import BEFORE_EPOCH, gauss_newton_diagonal
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.step import cross_entropy, mean_metrics
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import read_metrics

NUM_EXAMPLES = 64


@pytest.fixture
def config(monkeypatch):
    """The recipe of 1998 on a few digits of noise, three steps of its optimizer to an epoch."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(NUM_EXAMPLES, 28, 28, 1), dtype=np.uint8)
    labels = rng.integers(10, size=NUM_EXAMPLES, dtype=np.int32)
    noise = Dataset("noise", images, labels, images[:20], labels[:20], tuple("0123456789"))
    monkeypatch.setitem(DATASETS, "noise", lambda *_: noise)
    return dataclasses.replace(
        PRESETS["lenet5-1998-mnist"].config, dataset="noise", batch_size=20, eval_batch_size=20
    )


def curvature_of(state):
    return optax.tree_utils.tree_get(state.opt_state, "curvature")


@pytest.mark.slow
def test_begin_epoch_estimates_the_curvature(config):
    experiment = Experiment(config)
    params = jax.device_get(experiment.state.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(curvature_of(experiment.state)))
    state = experiment.begin_epoch(experiment.state)
    chex.assert_trees_all_equal(jax.device_get(state.params), params)
    curvature = jax.device_get(curvature_of(state))

    # In the mean over many signs; one draw of them, for 64 images, is some way off.
    dataset = experiment.dataset
    _, to_input = make_preprocess((), dataset.sample, config.pixel_mean, config.pixel_std)

    def draw(params, images):
        return MODELS[config.model]().apply({"params": params}, images, method="code")

    images = np.tile(to_input(dataset.train_images), (8, 1, 1, 1))
    expected = jax.jit(gauss_newton_diagonal, static_argnums=0)(
        draw, params, images, jax.random.key(7)
    )
    for layer in expected:
        ours, theirs = (
            sum(leaf.sum() for leaf in tree[layer].values()) for tree in (curvature, expected)
        )
        assert 0.5 < ours / theirs < 2

    state, _ = experiment.train(state, experiment.no_metrics(), 3)
    chex.assert_trees_all_equal(jax.device_get(curvature_of(state)), curvature)
    state = experiment.begin_epoch(state)
    assert np.any(curvature_of(state)["C1"]["kernel"] != curvature["C1"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [20, NUM_EXAMPLES])
def test_begin_epoch_resumes_to_the_same_bits(batch_size, config, tmp_path, monkeypatch):
    estimated_at = []
    begin_epoch = Experiment.begin_epoch

    def note_step(experiment, state):
        estimated_at.append(int(state.step))
        return begin_epoch(experiment, state)

    monkeypatch.setattr(Experiment, "begin_epoch", note_step)
    config = dataclasses.replace(
        config, batch_size=batch_size, epochs=3, checkpoint_every_steps=1, workdir=str(tmp_path)
    )
    train_and_evaluate(config)
    experiment = Experiment(config)
    epoch = experiment.steps_per_epoch
    assert estimated_at == [0, epoch, 2 * epoch]

    def final_params():
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            state, _ = checkpoints.restore(experiment.state, experiment.total_steps)
        return jax.device_get(state.params)

    params = final_params()
    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / str(experiment.total_steps))
    train_and_evaluate(config)
    chex.assert_trees_all_equal(final_params(), params)
    assert estimated_at[3:] == ([2 * epoch] if epoch == 1 else [])


@pytest.fixture
def linear(config, monkeypatch):
    """A small classifier, by minibatches of the same few digits, with a mean of its parameters."""
    monkeypatch.setitem(MODELS, "linear", Tiny)
    return dataclasses.replace(
        config,
        model="linear",
        optimizer=OptimizerConfig("sgd", 0.1, schedule="linear", warmup_epochs=1.0),
        batch_size=16,
        epochs=3,
        ema_decay=0.9,
        checkpoint_every_steps=1,
    )


@pytest.mark.slow
def test_begin_epoch_uses_the_first_images_of_the_epoch(config, monkeypatch):
    monkeypatch.setattr(
        "jaxcnn.optim.optimizers.BEFORE_EPOCH", BEFORE_EPOCH._replace(num_examples=8)
    )
    experiment = Experiment(config)
    images = experiment.dataset.train_images
    for epoch in (0, 1):
        expected = images[np.asarray(experiment.feed.order(epoch))[:8]]
        np.testing.assert_array_equal(experiment.feed.first_images(epoch, 8), expected)
    asked = []
    first_images = experiment.feed.first_images
    monkeypatch.setattr(
        experiment.feed, "first_images", lambda *of: asked.append(of) or first_images(*of)
    )
    state, _ = experiment.train(experiment.state, experiment.no_metrics(), 3)
    experiment.begin_epoch(state)
    assert asked[0] == (1, 8)


def test_log_line_covers_the_steps_since_the_one_before(linear, tmp_path):
    config = dataclasses.replace(linear, log_every_steps=2, workdir=str(tmp_path))
    train_and_evaluate(config)
    experiment = Experiment(config)
    state, lines = experiment.state, read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    rates = [0.025, 0.075, *(0.1 * (1 - passed / 8) for passed in (1, 3, 5, 7))]
    for line, rate in zip(lines, rates, strict=True):
        state, metrics = experiment.train(state, experiment.no_metrics(), line["step"])
        assert int(metrics["count"]) == 2 * config.batch_size
        expected = mean_metrics(metrics)
        assert line["train_loss"] == pytest.approx(expected["loss"], rel=1e-6)
        assert line["train_accuracy"] == pytest.approx(expected["accuracy"])
        assert line["learning_rate"] == pytest.approx(rate)
        assert line["epoch"] == line["step"] / 4
        assert ("test_loss" in line) == (line["step"] in (4, 8, 12))


@pytest.mark.slow
def test_evaluate_run_reads_the_checkpoint_asked_for(linear, tmp_path, monkeypatch):
    evaluate = Experiment.evaluate

    def best_at_4(experiment, state):
        return evaluate(experiment, state) | {"accuracy": 0.9 if int(state.step) == 4 else 0.5}

    monkeypatch.setattr(Experiment, "evaluate", best_at_4)
    config = dataclasses.replace(linear, checkpoint_every_steps=100, workdir=str(tmp_path))
    train_and_evaluate(config)
    losses = {line["step"]: line["test_loss"] for line in read_metrics(tmp_path)}
    assert [*losses] == [4, 8, 12] and len({*losses.values()}) == 3
    for asked, step in {"best": 4, 8: 8, None: 12}.items():
        evaluation = evaluate_run(tmp_path, step=asked)
        assert evaluation["step"] == step
        assert evaluation["test_loss"] == pytest.approx(losses[step], rel=1e-5)
    # The network has neither filters nor maps.
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        *("curves", "confusion", "mistakes", "shifts", "calibration", "rejection"),
    }


def trained(config, num_epochs):
    experiment = Experiment(config)
    carry = experiment.state, experiment.no_metrics()
    for epoch in range(num_epochs):
        stop = (epoch + 1) * experiment.steps_per_epoch
        carry = experiment.train(*carry, stop)
    return experiment, *carry


def test_experiment_smooths_labels(linear):
    losses = []
    for smoothing in (0.0, 0.5):
        experiment, state, _ = trained(dataclasses.replace(linear, label_smoothing=smoothing), 3)
        losses.append(experiment.evaluate(state)["loss"])
    assert losses[0] < losses[1]


def test_experiment_balances_classes(linear):
    experiment = Experiment(dataclasses.replace(linear, class_weights="balanced"))
    labels = experiment.dataset.train_labels
    losses = experiment.state.loss_fn(jnp.zeros((len(labels), 10)), jnp.asarray(labels))
    sums = np.bincount(labels, losses, minlength=10)
    np.testing.assert_allclose(sums, len(labels) / 10 * np.log(10), rtol=1e-4)


def test_experiment_accumulates_two_batches_into_one(linear):
    accumulated = dataclasses.replace(linear.optimizer, accumulate=2)
    whole, expected, expected_metrics = trained(dataclasses.replace(linear, batch_size=32), 2)
    halves, state, _ = trained(dataclasses.replace(linear, optimizer=accumulated), 2)
    assert (int(expected.step), int(state.step)) == (4, 8)
    chex.assert_trees_all_close(state.params, expected.params, rtol=1e-5, atol=1e-6)
    assert np.isfinite(expected_metrics["loss"])
    rates = [float(whole.schedule(step)) for step in range(whole.total_steps)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.075, 0.05, 0.025])
    rates_of_halves = [float(halves.schedule(step)) for step in range(halves.total_steps)]
    assert rates_of_halves == pytest.approx(np.repeat(rates, 2))


def test_experiment_refuses_a_decay_of_no_layer(linear):
    decays = (("Dense_0", 0.1), ("fc", 0.1))
    optimizer = dataclasses.replace(linear.optimizer, layer_decays=decays)
    with pytest.raises(UserError, match="names the layer 'fc'; expected one of Dense_0$"):
        Experiment(dataclasses.replace(linear, optimizer=optimizer))


@pytest.mark.slow
def test_experiment_resumes_and_reports_averaged_parameters(linear, tmp_path):
    config = dataclasses.replace(linear, workdir=str(tmp_path))
    result = train_and_evaluate(config)
    experiment = Experiment(config)

    def final_state():
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            state, _ = checkpoints.restore(experiment.state, experiment.total_steps)
        return jax.device_get(state)

    state = final_state()
    assert np.any(state.eval_params["Dense_0"]["kernel"] != state.params["Dense_0"]["kernel"])
    images, labels = experiment.dataset.test_images, experiment.dataset.test_labels
    _, to_input = make_preprocess((), lambda: images, config.pixel_mean, config.pixel_std)
    logits = Tiny(10).apply({"params": state.eval_params}, to_input(images))
    assert result["test_loss"] == pytest.approx(
        float(cross_entropy(logits, jnp.asarray(labels)).mean()), rel=1e-5
    )

    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / str(experiment.total_steps))
    assert train_and_evaluate(config)["test_loss"] == result["test_loss"]
    chex.assert_trees_all_equal(final_state(), state)


def test_experiment_refuses_label_smoothing_with_another_loss(config):
    with pytest.raises(UserError, match="`label_smoothing` only applies.*loss of its own"):
        Experiment(dataclasses.replace(config, label_smoothing=0.1))


@pytest.mark.slow
def test_experiment_trains_in_bfloat16_as_in_float32(linear):
    config = dataclasses.replace(linear, model="lenet5-tanh", optimizer=OptimizerConfig())
    losses = {}
    for dtype in ("float32", "bfloat16"):
        experiment, state, metrics = trained(dataclasses.replace(config, dtype=dtype), 3)
        assert int(state.step) == 12
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((state, metrics))}
        assert dtypes == {np.dtype("float32"), np.dtype("int32")}
        losses[dtype] = float(metrics["loss"])
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.01)
    outputs = state.apply_fn({"params": state.params}, jnp.zeros((1, 28, 28, 1)))
    assert outputs.dtype == jnp.bfloat16


def test_experiment_refuses_transforms_that_do_not_fit(config):
    with pytest.raises(UserError, match="do not fit: size is 40"):
        Experiment(dataclasses.replace(config, transforms=(RandomCrop(40),)))


@pytest.mark.slow
def test_experiment_averages_the_probabilities_of_ten_views(config):
    cropped = dataclasses.replace(
        config, transforms=(Resize(30), RandomCrop(28)), eval_views=10, eval_batch_size=33
    )
    experiment = Experiment(cropped)
    images, labels = experiment.dataset.test_images, experiment.dataset.test_labels
    resized = geometry.resize(images, size=30)
    views = geometry.views(resized, size=28, flips=True)
    to_input = functools.partial(augment.normalize, mean=config.pixel_mean, std=config.pixel_std)
    state = experiment.state
    outputs = state.apply_fn({"params": state.params}, to_input(views.reshape(-1, 28, 28, 1)))
    of_label = [
        state.loss_fn(outputs, np.full(len(outputs), label)).reshape(20, 10) for label in range(10)
    ]
    expected = np.log(np.exp(-np.stack(of_label, axis=-1).astype(float)).mean(1))
    means = experiment.evaluate(state)
    assert means["accuracy"] == (expected.argmax(-1) == labels).mean()
    assert means["loss"] == pytest.approx(-expected[np.arange(20), labels].mean(), rel=1e-5)


def test_experiment_refuses_views_without_a_crop(config):
    with pytest.raises(
        UserError, match="^`eval_views` is 10: 10 views are parts .* crop to `transforms`$"
    ):
        Experiment(dataclasses.replace(config, eval_views=10))


def test_experiment_evaluates_batches_that_do_not_divide(config):
    experiment = Experiment(dataclasses.replace(config, batch_size=1))
    assert 0 <= experiment.evaluate(experiment.state)["accuracy"] <= 1
    with pytest.raises(UserError, match="`batch_size` is 1; expected a multiple of 2"):
        experiment.compile()


def test_experiment_refuses_a_model_axis_without_split_layers(config):
    with pytest.raises(UserError, match="^`model_axis` is 2; it requires a network with fc6"):
        Experiment(dataclasses.replace(config, model_axis=2))


class Perceptron(nn.Module):
    """Two dense layers, split over devices as AlexNet's are."""

    model_axis: ClassVar = MODEL_AXIS

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.tanh(nn.Dense(6, name="fc6")(images.reshape(len(images), -1)))
        return nn.Dense(10, name="fc7")(x)


def test_experiment_splits_the_layers_on_the_model_axis(linear):
    results = []
    for model_axis in (1, 2):
        config = dataclasses.replace(linear, model_axis=model_axis)
        experiment = Experiment(config, model=Perceptron())
        state, metrics = experiment.train(experiment.state, experiment.no_metrics(), 5)
        kernel = state.params["fc6"]["kernel"]
        assert kernel.addressable_shards[0].data.shape == (784, 6 // model_axis)
        results.append(jax.device_get((state.params, metrics, experiment.evaluate(state))))
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("theirs", [None, "theirs"])
def test_experiment_respects_the_users_compilation_cache(theirs, linear, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path / "ours"))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", theirs and str(tmp_path / theirs))
        Experiment(linear)
        found = jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert found == str(tmp_path / (theirs or "ours/xla"))
    if not theirs:
        assert (tmp_path / "ours" / "xla").stat().st_mode & 0o777 == 0o700
