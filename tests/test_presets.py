"""The presets: each is carded, passes its checks, and fits its network and its data."""

import functools

import jax
import numpy as np
import pytest

from jaxcnn import config as config_module
from jaxcnn.config import TrainConfig
from jaxcnn.config_checks import settled
from jaxcnn.data import transforms
from jaxcnn.data.datasets import DATASETS
from jaxcnn.data.preprocess import make_preprocess
from jaxcnn.data.sources import PREFIXES
from jaxcnn.models import variants
from jaxcnn.presets import PRESETS

STORED = {"mnist": (28, 1), "mnist5k": (28, 1), "cifar10": (32, 3)}  # size and channels


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_named_carded_and_can_be_built(name):
    config = PRESETS[name].config
    assert config.preset == name and PRESETS[name].card
    assert config.dataset in DATASETS or config.dataset.startswith(PREFIXES)
    settled(config)
    size, channels = STORED.get(config.dataset, (config.stream_size, 3))
    stored = jax.ShapeDtypeStruct((4, size, size, channels), np.uint8)
    sample = np.random.default_rng(0).integers(256, size=(4, 8, 8, channels), dtype=np.uint8)
    for_training, for_evaluation = make_preprocess(
        config.transforms, lambda: sample, config.pixel_mean, config.pixel_std
    )
    images = jax.eval_shape(for_training, jax.random.key(0), stored)
    views = jax.eval_shape(functools.partial(for_evaluation, views=config.eval_views), stored)
    assert views.shape == (4 * config.eval_views, *images.shape[1:])
    assert images.shape[1:] == variants.image_shape(config.model)
    jax.eval_shape(variants.constructor(config.model)().init, jax.random.key(0), images)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_state_command_hardware_and_accuracy(name):
    card = PRESETS[name].card
    assert "python scripts/train.py" in card, card
    assert len(card.splitlines()[0]) <= 46, card  # the title has a line of `train.py --help`
    for entry in ("command", "hardware", "accuracy"):
        assert any(line.strip().startswith(entry) for line in card.splitlines()), card


def test_repr_of_a_preset_is_its_card_and_what_differs_from_the_defaults():
    text = repr(PRESETS["lenet5-modern-mnist"])
    assert text.startswith("lenet5-modern-mnist: LeNet-5's size with later methods\n")
    assert max(map(len, text.splitlines())) <= 100 and "workdir" not in text
    shown = text.partition("  TrainConfig(")[2]
    config = eval(f"TrainConfig({shown}", vars(config_module) | vars(transforms))
    assert config == PRESETS["lenet5-modern-mnist"].config
    assert repr(TrainConfig()) == "TrainConfig()"
