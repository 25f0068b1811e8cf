"""A config by itself: types, bounds, and fields that contradict each other."""

import dataclasses
import math
import pathlib
import re
from dataclasses import replace

import numpy as np
import pytest

from jaxcnn import PRESETS
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.config_checks import settled
from jaxcnn.data.transforms import Affine, RandomCrop
from jaxcnn.errors import UserError

NOTHING_FITS = [3j, b"x", abs, object(), np.zeros((2, 2)), {"a": 1}, {1}]  # of any field


def with_field(field, value):
    """Return the default config with one field changed, such as optimizer.mu."""
    config, (*inside, name) = TrainConfig(), field.split(".")
    if not inside:
        return replace(config, **{name: value})
    return replace(config, optimizer=replace(config.optimizer, **{name: value}))


def test_settled_refuses_patience_without_a_validation_split():
    settled(replace(TrainConfig(), val_fraction=0.1, patience=3))
    with pytest.raises(UserError, match=r"^`patience` is 3, .* test set .* set `val_fraction`"):
        settled(replace(TrainConfig(), patience=3))


FIELDS = [f.name for f in dataclasses.fields(TrainConfig)]
FIELDS += [f"optimizer.{f.name}" for f in dataclasses.fields(OptimizerConfig)]


@pytest.mark.parametrize("field", FIELDS)
def test_settled_refuses_values_of_another_type(field):
    *_, name = field.split(".")
    default = getattr(TrainConfig().optimizer if "." in field else TrainConfig(), name)
    wrong = [*NOTHING_FITS, True, ""]
    wrong = [value for value in wrong if type(value) is not type(default)]
    for value in wrong:
        with pytest.raises(UserError, match=f"^`{field}`"):
            settled(with_field(field, value))


def test_settled_returns_plain_values():
    config = TrainConfig(
        seed=np.int64(3),
        eval_views=np.int32(2),
        ema_decay=np.float32(0.5),
        pixel_mean=np.array([0.25, 0.5]),
        pixel_std=[1],
        transforms=[Affine(degrees=10, scale=np.float64(0.1)), RandomCrop(np.int32(24))],
        workdir=pathlib.Path("runs/mine"),
        multihost=np.bool_(True),
        optimizer=OptimizerConfig(schedule="steps", rate_steps=[[1, 0.1]]),
    )
    result = settled(config)
    expected = TrainConfig(
        seed=3,
        eval_views=2,
        ema_decay=0.5,
        pixel_mean=(0.25, 0.5),
        pixel_std=(1.0,),
        transforms=(Affine(degrees=10.0, scale=0.1), RandomCrop(24)),
        workdir="runs/mine",
        multihost=True,
        optimizer=OptimizerConfig(schedule="steps", rate_steps=((1.0, 0.1),)),
    )
    assert repr(result) == repr(expected) and settled(result) == result


@pytest.mark.parametrize("preset", PRESETS)
def test_settled_accepts_presets(preset):
    assert settled(PRESETS[preset].config) == PRESETS[preset].config


@pytest.mark.parametrize("config", ["lenet5-mnist5k", PRESETS["lenet5-mnist5k"], None, {}])
def test_settled_names_the_type_of_a_config(config):
    with pytest.raises(UserError, match="^the config is .*; expected a TrainConfig, such as PRES"):
        settled(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2**31),
        ("epochs", -1),
        ("epochs", 2.5),
        ("epochs", 10**400),
        ("eval_batch_size", 0),
        ("eval_every_epochs", 0),
        ("eval_views", 3),
        ("stream_size", 10**6),
        ("dtype", "float64"),
        ("on_bad_image", "Skip"),
        ("channels", 2),
        ("max_value", 0.0),
        ("hold_out", 1.0),
        ("log_every_steps", 0),
        ("checkpoint_every_steps", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("pixel_mean", ()),
        ("pixel_mean", (math.nan,)),
        ("pixel_std", ()),
        ("pixel_std", (0.5, 0.0, 0.5)),
        ("pixel_std", (math.nan,)),
        ("pixel_std", (1e-320,)),
        ("dataset", "folder:"),
        ("dataset", "folder:gs://bucket/images"),
        ("workdir", ""),
        ("workdir", "gs://bucket/run"),
        ("data_dir", pathlib.Path("s3://bucket")),
        ("manual_dir", "~nosuchuser/x"),
        ("optimizer.name", "SGD"),
        ("optimizer.schedule", "step"),
        ("optimizer.schedule", "steps"),  # without steps
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", math.nan),
        ("optimizer.learning_rate", math.inf),
        ("optimizer.momentum", 1.0),
        ("optimizer.mu", 0.0),
        ("optimizer.bias_rate", 0.0),
        ("optimizer.nesterov", True),  # with Adam, as the next
        ("optimizer.weight_decay", 0.1),
        ("optimizer.weight_decay", -0.1),
        ("optimizer.layer_decays", (("conv1", 0.1),)),  # with Adam
        ("optimizer.layer_decays", (("conv1", -0.1),)),
        ("optimizer.layer_decays", (("conv1", math.nan),)),
        ("optimizer.clip_norm", -1.0),
        ("optimizer.clip_norm", math.nan),
        ("optimizer.accumulate", 0),
        ("optimizer.accumulate", 1.5),
        ("optimizer.warmup_epochs", -1.0),
        ("optimizer.warmup_epochs", 10.0),
        ("model_axis", 0),
        ("coordinator", "localhost:1234"),  # without multihost, as the next two
        ("num_processes", 2),
        ("process_id", 0),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("class_weights", "equal"),
        ("ema_decay", 1.0),
        ("ema_decay", math.nan),
    ],
)
def test_settled_refuses_values_out_of_range_by_name(field, value):
    with pytest.raises(UserError, match=rf"^`{field}`"):
        settled(with_field(field, value))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coordinator": "localhost"}, "`coordinator` is 'localhost'; expected HOST:PORT"),
        ({"num_processes": 2, "process_id": 2}, "`process_id` is 2; expected less than"),
        ({"num_processes": 0}, "`num_processes` is 0; expected in"),
    ],
)
def test_settled_checks_the_processes(fields, message):
    settled(TrainConfig(multihost=True, coordinator="[::1]:80", num_processes=2, process_id=1))
    with pytest.raises(UserError, match=message):
        settled(TrainConfig(multihost=True, **fields))


@pytest.mark.parametrize("rule", ["adam", "adamw", "sgd", "sgd-2012", "diagonal-lm"])
@pytest.mark.parametrize(
    ("field", "value", "rules"),
    [
        ("momentum", 0.5, ["sgd", "sgd-2012"]),
        ("nesterov", True, ["sgd"]),
        ("weight_decay", 0.1, ["adamw", "sgd", "sgd-2012"]),
        ("layer_decays", (("conv1", 0.1),), ["adamw", "sgd", "sgd-2012"]),
        ("decay_biases", True, ["adamw", "sgd", "sgd-2012"]),
        ("mu", 0.4, ["diagonal-lm"]),
    ],
)
def test_settled_refuses_options_of_other_optimizers(field, value, rules, rule):
    optimizer = replace(OptimizerConfig(name=rule), **{field: value})
    if rule in rules:
        decay = {"weight_decay": 0.1} if field == "decay_biases" else {}
        settled(TrainConfig(optimizer=replace(optimizer, **decay)))
    else:
        default = re.escape(str(getattr(OptimizerConfig(), field)))
        message = f"{field}` only applies to {' or '.join(rules)}, .* is {rule}; .* to {default} or"
        with pytest.raises(UserError, match=message):
            settled(TrainConfig(optimizer=optimizer))


def test_settled_refuses_decay_of_biases_without_decay():
    with pytest.raises(UserError, match="^`optimizer.decay_biases` requires a positive `optim"):
        settled(TrainConfig(optimizer=OptimizerConfig(name="sgd", decay_biases=True)))
    of_layers = OptimizerConfig(name="sgd", decay_biases=True, layer_decays=(("conv1", 0.1),))
    settled(TrainConfig(optimizer=of_layers))


def test_settled_refuses_a_layer_with_two_decays():
    decays = (("conv1", 0.1), ("conv1", 0.2))
    with pytest.raises(UserError, match="layer_decays` names conv1, conv1; expected each once"):
        settled(TrainConfig(optimizer=OptimizerConfig(name="sgd", layer_decays=decays)))


def test_settled_refuses_rate_steps_without_their_schedule():
    optimizer = OptimizerConfig(schedule="cosine", rate_steps=((1.0, 0.5),))
    with pytest.raises(UserError, match="^`optimizer.schedule` is cosine, and `optimizer.rate_st"):
        settled(TrainConfig(optimizer=optimizer))


@pytest.mark.parametrize("rate_steps", [((2, 0.5), (2, 0.1)), ((1, 0.5),), ((2, 0.0),)])
def test_settled_refuses_rate_steps_out_of_order(rate_steps):
    optimizer = OptimizerConfig(schedule="steps", warmup_epochs=1.0, rate_steps=rate_steps)
    with pytest.raises(UserError, match="^`optimizer.rate_steps`"):
        settled(TrainConfig(optimizer=optimizer))


def test_settled_accepts_the_ends_of_the_ranges():
    settled(TrainConfig(batch_size=1, epochs=1, eval_batch_size=1, log_every_steps=1, seed=0))
    settled(TrainConfig(eval_every_epochs=1, checkpoint_every_steps=1, seed=2**32 - 1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 5}, "`epochs` is 5, but the run has 10 already; expected more"),
        ({"epochs": 10}, "`epochs` is 10, but the run has 10 already"),
        ({"optimizer": OptimizerConfig(schedule="cosine")}, "is cosine, whose rates depend on"),
        ({"optimizer": OptimizerConfig(schedule="linear")}, "is linear, whose rates depend on"),
    ],
)
def test_settled_refuses_to_continue_a_run_that_would_have_been_another(fields, message):
    config = replace(TrainConfig(epochs=20, continued_from=(2, 10)), **fields)
    with pytest.raises(UserError, match=re.escape(message)):
        settled(config)


def test_settled_takes_a_continued_run():
    config = TrainConfig(epochs=20, continued_from=(2, 10))
    assert settled(config) == config
    steps = OptimizerConfig(schedule="steps", rate_steps=((1, 0.1),), warmup_epochs=0.5)
    assert settled(replace(config, optimizer=steps)).continued_from == (2, 10)
