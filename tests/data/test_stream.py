"""The order of streamed images, their batches, and the shares of several processes."""

import jax
import numpy as np
import pytest
from helpers import numbered, numbers, order_of

from jaxcnn.data.stream import evaluation_batches, training_batches
from jaxcnn.distributed import mesh


def test_training_batches_are_whole_and_read_an_image_once():
    order = order_of(numbered(23))
    assert [len(batch) for batch in order] == [4] * 5
    assert len({number for batch in order for number in batch}) == 20
    (batch,) = training_batches(numbered(9), seed=0, epoch=0, first=0, batch_size=9)
    assert sorted(numbers(batch)) == list(range(9))
    assert batch["label"].tolist() == [number % 7 for number in numbers(batch)]
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32


def test_training_batches_depend_on_seed_and_epoch():
    orders = {
        (seed, epoch): order_of(numbered(23), seed=seed, epoch=epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    assert order_of(numbered(23), seed=2, epoch=1) == orders[2, 1]
    assert len({str(order) for order in orders.values()}) == 9


@pytest.mark.parametrize("first", [0, 1, 4])
def test_training_batches_start_at_any_batch(first):
    assert order_of(numbered(23), first=first) == order_of(numbered(23))[first:]


@pytest.mark.parametrize("num_processes", [2, 4])
def test_training_batches_are_shared_by_processes(num_processes, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: num_processes)
    parts = []
    for index in range(num_processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(order_of(numbered(23), share=mesh.process_share(4)))
    assert [sum(batch, []) for batch in zip(*parts, strict=True)] == order_of(numbered(23))


def test_evaluation_batches_are_in_order_and_mask_the_padding():
    batches = list(evaluation_batches(numbered(10), batch_size=4))
    assert sum((numbers(batch) for batch in batches), []) == [*range(10), 0, 0]
    masks = np.concatenate([batch["mask"] for batch in batches])
    assert masks.tolist() == [True] * 10 + [False] * 2


def test_training_batches_draw_images_by_their_probabilities():
    images, probabilities = numbered(100), np.repeat([0.002, 0.018], 50)
    drawn = order_of(images, batch_size=100, probabilities=probabilities)[0]
    for epoch in range(1, 20):
        drawn += order_of(images, epoch=epoch, batch_size=100, probabilities=probabilities)[0]
    assert np.mean(np.array(drawn) < 50) == pytest.approx(0.1, abs=0.03)
    again = order_of(images, epoch=3, first=2, batch_size=20, probabilities=probabilities)
    assert sum(again, []) == drawn[340:400]
