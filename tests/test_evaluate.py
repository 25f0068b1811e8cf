import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn import evaluate as evaluation
from jaxcnn import mesh
from jaxcnn.step import create_state

NUM_EXAMPLES, NUM_CLASSES = 11, 3


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


def jitted(function, batch_size, transform=lambda x: x / 255.0):
    sharding = mesh.batch_sharding(mesh.device_mesh())
    arguments = {"transform": transform, "sharding": sharding, "batch_size": batch_size}
    return jax.jit(functools.partial(function, **arguments))


# Smaller than the set, of its size but for one, and larger.
@pytest.mark.parametrize("batch_size", [2, 4, 10, 12, 64])
def test_each_example_counts_once_whatever_the_batch_size(batch_size, state, test_set, logits):
    labels = test_set[1]
    metrics = jitted(evaluation.evaluate, batch_size)(state, *test_set)
    assert int(metrics["count"]) == NUM_EXAMPLES
    assert int(metrics["correct"]) == (logits.argmax(-1) == labels).sum()
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(NUM_EXAMPLES), labels]
    chex.assert_trees_all_close(metrics["loss"], np.float32(losses.sum()), rtol=1e-6)


@pytest.mark.parametrize("batch_size", [2, 64])
def test_predictions_are_those_of_the_examples_in_order(batch_size, state, test_set, logits):
    predictions = jitted(evaluation.predict, batch_size)(state, test_set[0])
    chex.assert_trees_all_close(predictions, jax.nn.log_softmax(logits), atol=1e-6)


@pytest.mark.parametrize("batch_size", [4, 64])
def test_views_are_averaged_example_by_example(batch_size, state, test_set):
    def two_views(images):
        return jnp.stack([images, 255 - images], axis=1).reshape(-1, 2, 3, 1) / 255.0

    predictions = jitted(evaluation.predict, batch_size, two_views)(state, test_set[0])
    one, other = (
        jnp.exp(jitted(evaluation.predict, 64)(state, images))
        for images in (test_set[0], 255 - test_set[0])
    )
    chex.assert_trees_all_close(predictions, jnp.log((one + other) / 2), atol=1e-5)
    metrics = jitted(evaluation.evaluate, batch_size, two_views)(state, *test_set)
    of_labels = predictions[np.arange(NUM_EXAMPLES), test_set[1]]
    chex.assert_trees_all_close(metrics["loss"], -of_labels.sum(), rtol=1e-5)
    assert int(metrics["count"]) == NUM_EXAMPLES


def test_means_are_divided_once_on_the_host():
    metrics = {"loss": jnp.float32(6), "correct": jnp.int32(3), "count": jnp.int32(4)}
    means = evaluation.mean_metrics(metrics)
    assert means == {"loss": 1.5, "accuracy": 0.75}
    assert {type(value) for value in means.values()} == {float}


def test_confusion_matrix_by_eye():
    labels = np.array([0, 0, 1, 2, 2, 2])
    predictions = np.array([0, 1, 1, 2, 2, 0])
    expected = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]])
    chex.assert_trees_all_equal(evaluation.confusion_matrix(labels, predictions, 3), expected)


def test_confusion_of_many_classes_in_a_small_integer_type():
    labels = np.arange(100, dtype=np.int8)
    confusion = evaluation.confusion_matrix(labels, labels[::-1], 100)
    chex.assert_trees_all_equal(confusion, np.eye(100, dtype=confusion.dtype)[::-1])


def test_precision_and_recall_by_eye():
    precision, recall = evaluation.precision_recall(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 2]]))
    chex.assert_trees_all_close(precision, np.array([1 / 2, 1 / 2, 1]))
    chex.assert_trees_all_close(recall, np.array([1 / 2, 1, 2 / 3]))


def test_precision_of_a_class_never_called_and_recall_of_an_absent_one_are_nan():
    # Class 0 is never called, class 1 is absent, class 2 is both.
    precision, recall = evaluation.precision_recall(np.array([[0, 4, 0], [0, 0, 0], [0, 0, 0]]))
    chex.assert_trees_all_equal(precision, np.array([np.nan, 0, np.nan]))
    chex.assert_trees_all_equal(recall, np.array([0, np.nan, np.nan]))


def test_top_accuracy():
    log_probabilities = np.log([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2]])
    labels = np.array([1, 0, 1])
    found = [evaluation.top_accuracy(log_probabilities, labels, k) for k in (1, 2, 3)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1])
