"""Exhausted memory: what was needed, what there is, what to lower."""

import numpy as np
import pytest
from flax import linen as nn
from helpers import Tiny
from jax import numpy as jnp

from jaxcnn import train_and_evaluate
from jaxcnn.config import TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import RunError
from jaxcnn.training import memory

HUGE = 10**13  # bytes, more than any machine has


class Huge(nn.Module):
    """A network with an output that no machine can hold."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(3)(images.reshape(len(images), -1))
        tall, wide = (jnp.linspace(0, 1, 3 * n).reshape(3, n) for n in (10**7, HUGE // 4 // 10**7))
        return x + jnp.sin((x[:1].reshape(3, 1) * tall).T @ wide).mean()


def dataset_of(num_images):
    """Return a dataset whose images need no memory on the host."""
    images = np.broadcast_to(np.uint8(7), (num_images, 4, 4, 1))
    labels = np.zeros(num_images, np.int32)
    return Dataset("noise", images, labels, images[:16], labels[:16], tuple("abc"))


def train(tmp_path, dataset, model):
    config = TrainConfig(dataset="noise", batch_size=16, epochs=1, workdir=str(tmp_path))
    return train_and_evaluate(config, dataset=dataset, model=model)


def test_train_says_what_a_step_needs(tmp_path):
    message = (
        r"^out of memory: Out of memory allocating .* bytes; the dataset needs 0.00 GiB, "
        r"parameters and optimizer 0.00 GiB, a training step another [\d,]+\.\d\d GiB; "
        r"the device has \d+\.\d\d GiB; lower `batch_size` \(now 16; .*, or stream the dataset"
    )
    with pytest.raises(RunError, match=message):
        train(tmp_path, dataset_of(64), Huge())


def test_train_says_that_a_dataset_does_not_fit(tmp_path, monkeypatch):
    images = np.broadcast_to(np.uint8(7), (64, 10**6, 10**5, 1))
    labels = np.zeros(64, np.int32)
    dataset = Dataset("noise", images, labels, images[:16], labels[:16], tuple("abc"))
    message = r"^out of memory: .*; the dataset needs 7,\d{3}\.\d\d GiB; the device has"
    with pytest.raises(RunError, match=message):
        train(tmp_path, dataset, Tiny())


def test_explain_exhaustion_leaves_other_errors():
    with (
        pytest.raises(ZeroDivisionError),
        memory.explain_exhaustion(TrainConfig(), lambda: "nothing"),
    ):
        _ = 1 / 0
