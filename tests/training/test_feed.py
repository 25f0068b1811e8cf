"""What every feed shares: the size of an evaluation step."""

import jax.numpy as jnp
import pytest

from jaxcnn.config import TrainConfig
from jaxcnn.distributed import mesh
from jaxcnn.training.feed import evaluation_arguments


def arguments(**fields):
    config = TrainConfig(**fields)
    preprocess = lambda images, views: jnp.full((), views)  # noqa: E731
    return evaluation_arguments(config, preprocess, mesh.device_mesh(), 20)


@pytest.mark.parametrize(
    ("eval_batch_size", "views", "expected"),
    [(6, 1, 6), (5, 1, 6), (1000, 1, 20), (1000, 2, 20), (6, 2, 4)],
)
def test_evaluation_arguments_keep_a_step_within_the_set(eval_batch_size, views, expected):
    found = arguments(eval_batch_size=eval_batch_size, eval_views=views)
    assert found["batch_size"] == expected
    assert found["preprocess"](None) == views
    assert found["sharding"] == mesh.batch_sharding(mesh.device_mesh())
