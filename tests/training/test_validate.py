"""Checks of a config before and after its data is loaded."""

import dataclasses
import os
import pathlib

import numpy as np
import pytest
from helpers import Tiny, open_folder

from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError
from jaxcnn.models import MODELS
from jaxcnn.training import validate


def optimizer(**fields):
    return TrainConfig(batch_size=16, epochs=3, optimizer=OptimizerConfig(**fields))


def test_validated_makes_the_folder_of_images_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = validate.validated(TrainConfig(dataset="folder:images/"))
    assert config.dataset == f"folder:{os.path.join(tmp_path, 'images')}"


@pytest.mark.parametrize("field", ["model", "dataset"])
def test_validated_takes_any_label_for_what_is_given(field):
    config = dataclasses.replace(TrainConfig(), **{field: "mine"})
    with pytest.raises(UserError, match=f"no {field} is called 'mine'"):
        validate.validated(config)
    given = {"model": Tiny(), "dataset": Dataset("mine", *4 * [np.zeros(0)], ())}[field]
    assert validate.validated(config, **{field: given}) == config


@pytest.mark.parametrize(
    "given",
    [
        *({"dataset": wrong} for wrong in ("mnist", pathlib.Path("images"), 3)),
        *({"model": wrong} for wrong in ("lenet5", MODELS["lenet5"], 3)),
    ],
)
def test_validated_refuses_what_is_no_dataset_and_no_network(given):
    (name,) = given
    with pytest.raises(UserError, match=f"^the {name} is .*; expected a .* belongs into the conf"):
        validate.validated(TrainConfig(), **given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hold_out": 0.1}, "`hold_out` is 0.1, but mnist has test images"),
        ({"hold_out": 0.1, "dataset": "tfds:mnist"}, "it applies to folder:DIR only"),
        ({"channels": 1}, "`channels` is 1, but mnist is not streamed"),
        ({"max_value": 4095.0}, "`max_value` is 4095.0, but mnist is not streamed"),
    ],
)
def test_validated_refuses_options_of_other_datasets(fields, message):
    with pytest.raises(UserError, match=message):
        validate.validated(TrainConfig(**fields))
    images = TrainConfig(**(fields | {"dataset": "folder:/images"}))
    assert validate.validated(images) == images


def test_validated_refuses_noise_on_labels_of_a_stream(image_folder):
    noisy = TrainConfig(label_noise=0.1)
    assert validate.validated(noisy) == noisy
    with pytest.raises(UserError, match=r"^`label_noise` is 0.1, but folder:/i is streamed with"):
        validate.validated(TrainConfig(label_noise=0.1, dataset="folder:/i"))
    with pytest.raises(UserError, match=r"^`label_noise` is 0.1, but mnist is streamed with"):
        validate.validated(noisy, dataset=open_folder(image_folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TrainConfig(batch_size=65), "`batch_size` is 65; expected at most 64"),
        (TrainConfig(batch_size=1, epochs=2**31 // 64), "`epochs` is .* at most 33,554,431,"),
        (optimizer(accumulate=13), "`optimizer.accumulate` is 13; expected at most 12"),
        (
            optimizer(warmup_epochs=2.95, schedule="linear"),
            "`optimizer.warmup_epochs` is 2.95",
        ),
    ],
)
def test_check_run_length_refuses_a_run_without_an_update(config, message):
    with pytest.raises(UserError, match=message):
        validate.check_run_length(config, 64)


def test_check_run_length_refuses_a_set_for_testing():
    with pytest.raises(UserError, match="cifar10_1/v6 has no training images; expected a dataset"):
        validate.check_run_length(TrainConfig(dataset="cifar10_1/v6"), 0)


def test_check_run_length_accepts_the_shortest_runs():
    validate.check_run_length(TrainConfig(batch_size=64, epochs=1), 64)
    validate.check_run_length(optimizer(accumulate=12), 64)
    validate.check_run_length(optimizer(warmup_epochs=2.75, schedule="linear"), 64)


@pytest.mark.parametrize(
    ("fields", "model", "message"),
    [
        (
            {"optimizer": OptimizerConfig(name="diagonal-lm"), "class_weights": "balanced"},
            MODELS["lenet5-1998"](),
            "`class_weights` is balanced, but the curvature",
        ),
        ({"dtype": "bfloat16"}, Tiny(), "`dtype` is bfloat16"),
        ({"label_smoothing": 0.1}, MODELS["lenet5-1998"](), "`label_smoothing` only applies"),
        ({"optimizer": OptimizerConfig(name="diagonal-lm")}, MODELS["lenet5"](), "diagonal-lm"),
    ],
)
def test_check_network_names_the_flag_that_does_not_fit(fields, model, message):
    with pytest.raises(UserError, match=message):
        validate.check_network(dataclasses.replace(TrainConfig(), **fields), model)
    validate.check_network(TrainConfig(), model)


def test_check_layers_names_the_layer_that_is_missing():
    config = optimizer(name="sgd", layer_decays=(("fc6", 0.1), ("fc9", 0.1)))
    validate.check_layers(config, ["fc6", "fc9"])
    with pytest.raises(UserError, match="'fc9'; expected one of fc6, fc7"):
        validate.check_layers(config, ["fc6", "fc7"])
