"""The first value that is not finite: in which layer, which pass, which step."""

import numpy as np
import pytest
from flax import linen as nn
from jax import numpy as jnp

from jaxcnn import train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import RunError, UserError


class Layer(nn.Module):
    """A layer that divides by 0 in the forward or in the backward pass."""

    fault: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3, name="inner")(x)
        white = (x * 0).min(axis=1, keepdims=True)
        return {
            "output": x / white,
            "gradient": x + jnp.sqrt(white),
            "none": x,
        }[self.fault]


class Network(nn.Module):
    fault: str = "none"

    @nn.compact
    def __call__(self, images, *, train=False):
        x = nn.Dense(3, name="first")(images.reshape(len(images), -1))
        x = Layer(self.fault, name="second")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(3, name="third")(x)


def train(tmp_path, fault="none", **fields):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(64, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(3, size=64, dtype=np.int32)
    dataset = Dataset("noise", images, labels, images, labels, tuple("abc"))
    config = TrainConfig(
        **{"dataset": "noise", "batch_size": 16, "epochs": 1, "workdir": str(tmp_path)},
        **{"debug_nans": True, **fields},
    )
    return train_and_evaluate(config, dataset=dataset, model=Network(fault))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        pytest.param(
            "output",
            r"step 1: the output of second holds \d+ NaN and \d+ infinite of 48 values ",
            marks=pytest.mark.slow,
        ),
        ("gradient", "step 1: the gradient of the output of second/inner holds 48 NaN and 0 inf"),
    ],
)
def test_debug_nans_names_the_layer(fault, message, tmp_path):
    with pytest.raises(RunError, match=f"{message}.*on_nonfinite` skip$"):
        train(tmp_path, fault)


@pytest.mark.slow
def test_debug_nans_names_the_parameter_that_an_update_makes_infinite(tmp_path):
    rule = OptimizerConfig(name="sgd", learning_rate=1e38, bias_rate=1e6)
    with pytest.raises(RunError, match="step 1: after the update, first/bias holds 0 NaN and 3"):
        train(tmp_path, optimizer=rule)


@pytest.mark.slow
def test_debug_nans_changes_nothing_where_values_are_finite(tmp_path):
    results = [train(tmp_path / str(debug), debug_nans=debug) for debug in (False, True)]
    assert results[0]["test_loss"] == results[1]["test_loss"]


def test_debug_nans_refuses_to_skip(tmp_path):
    with pytest.raises(UserError, match="^`debug_nans` stops at .*, but `on_nonfinite` is skip"):
        train(tmp_path, on_nonfinite="skip")
