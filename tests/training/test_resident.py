"""A dataset that lies on the devices: the order of its epochs."""

import dataclasses

import numpy as np
import pytest
from helpers import Tiny

from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.training.experiment import Experiment

NUM_EXAMPLES = 64
CONFIG = TrainConfig(batch_size=16, epochs=3, compilation_cache=False)


def new_feed(config=CONFIG):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(NUM_EXAMPLES, 4, 4, 1), dtype=np.uint8)
    labels = rng.choice(3, NUM_EXAMPLES, p=(0.7, 0.2, 0.1)).astype(np.int32)
    dataset = Dataset("noise", images, labels, images[:20], labels[:20], tuple("abc"))
    experiment = Experiment(config, dataset=dataset, model=Tiny())
    return experiment, experiment.feed, dataset


def orders(config, epochs):
    _, feed, _ = new_feed(config)
    return {epoch: np.asarray(feed.order(epoch)) for epoch in epochs}


def test_resident_feed_orders_an_epoch_by_seed_and_epoch_alone():
    seed_0, seed_1 = orders(CONFIG, (0, 1)), orders(dataclasses.replace(CONFIG, seed=1), (0, 1))
    found = [*seed_0.values(), *seed_1.values()]
    for order in found:
        assert sorted(order) == list(range(NUM_EXAMPLES))
    assert len({tuple(order) for order in found}) == 4
    again = orders(CONFIG, (1, 0))
    np.testing.assert_array_equal(again[1], seed_0[1])
    np.testing.assert_array_equal(again[0], seed_0[0])


def test_resident_feed_draws_the_classes_equally_often():
    config = dataclasses.replace(CONFIG, class_weights="sampled")
    _, feed, dataset = new_feed(config)
    rows = np.concatenate([np.asarray(feed.order(epoch)) for epoch in range(30)])
    shares = np.bincount(dataset.train_labels[rows], minlength=3) / len(rows)
    np.testing.assert_allclose(shares, 1 / 3, atol=0.05)
    assert {*rows.tolist()} == {*range(NUM_EXAMPLES)}
    np.testing.assert_array_equal(orders(config, (1,))[1], rows[NUM_EXAMPLES : 2 * NUM_EXAMPLES])


@pytest.mark.parametrize(("count", "expected"), [(8, 8), (1000, NUM_EXAMPLES)])
def test_resident_feed_returns_the_first_images_of_an_epoch(count, expected):
    _, feed, dataset = new_feed()
    rows = np.asarray(feed.order(1))[:expected]
    np.testing.assert_array_equal(feed.first_images(1, count), dataset.train_images[rows])
