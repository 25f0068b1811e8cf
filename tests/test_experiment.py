"""A config come to life: what is due before an epoch, and a run that goes on after it."""

import dataclasses
import shutil

import chex
import jax
import numpy as np
import optax
import pytest

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.datasets import DATASETS, Dataset
from jaxcnn.errors import UserError
from jaxcnn.experiment import Experiment
from jaxcnn.models import MODELS
from jaxcnn.optimizers import gauss_newton_diagonal
from jaxcnn.pipeline import compose
from jaxcnn.transforms import RandomCrop

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
        PRESETS["lenet5-1998-mnist"], dataset="noise", batch_size=20, eval_batch_size=20
    )


def curvature_of(state):
    return optax.tree_utils.tree_get(state.opt_state, "curvature")


def test_the_curvature_is_estimated_before_an_epoch_and_kept_in_it(config):
    experiment = Experiment(config)
    params = jax.device_get(experiment.state.params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(curvature_of(experiment.state)))
    order = experiment.epoch_order(0)
    state = experiment.begin_epoch(experiment.state, order)
    chex.assert_trees_all_equal(jax.device_get(state.params), params)
    curvature = jax.device_get(curvature_of(state))

    # In the mean over many signs; one draw of them, for 64 images, is some way off.
    dataset = experiment.dataset
    _, to_input = compose((), dataset.train_images, config.pixel_mean, config.pixel_std)

    def draw(params, images):
        return MODELS[config.model]().apply({"params": params}, images, method="draw")

    images = np.tile(to_input(dataset.train_images), (8, 1, 1, 1))
    expected = jax.jit(gauss_newton_diagonal, static_argnums=0)(
        draw, params, images, jax.random.key(7)
    )
    for layer in expected:
        ours, theirs = (
            sum(leaf.sum() for leaf in tree[layer].values()) for tree in (curvature, expected)
        )
        assert 0.5 < ours / theirs < 2

    state, _ = experiment.train(state, experiment.no_metrics(), order, 3)
    chex.assert_trees_all_equal(jax.device_get(curvature_of(state)), curvature)
    state = experiment.begin_epoch(state, experiment.epoch_order(1))
    assert np.any(curvature_of(state)["C1"]["kernel"] != curvature["C1"]["kernel"])


@pytest.mark.parametrize("batch_size", [20, NUM_EXAMPLES], ids=["in mid-epoch", "between epochs"])
def test_going_on_with_the_curvature_ends_in_the_same_bits(
    batch_size, config, tmp_path, monkeypatch
):
    estimated_at = []
    begin_epoch = Experiment.begin_epoch

    def note_step(experiment, state, order):
        estimated_at.append(int(state.step))
        return begin_epoch(experiment, state, order)

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


def test_a_network_that_draws_nothing_has_no_curvature(config):
    with pytest.raises(UserError, match="diagonal-lm needs a network that draws a target.*lenet5 "):
        Experiment(dataclasses.replace(config, model="lenet5"))


def test_transforms_that_do_not_fit_are_refused(config):
    with pytest.raises(UserError, match="do not fit: size is 40"):
        Experiment(dataclasses.replace(config, transforms=(RandomCrop(40),)))
