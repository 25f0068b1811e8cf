"""The fields of a config: bounds, JSON, and the differences between two runs."""

import dataclasses
import json
import math
import pathlib
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcnn.config import OptimizerConfig, TrainConfig, check, differences, from_json, to_json
from jaxcnn.data.transforms import Affine, HorizontalFlip, RandomCrop
from jaxcnn.errors import UserError

FREE = {"preset", "card", "workdir", "data_dir", "manual_dir", "compilation_cache"}
FREE |= {"on_bad_image", "eval_batch_size"}
LAUNCH = {"multihost", "coordinator", "num_processes", "process_id", "model_axis"}


@given(st.from_type(TrainConfig))
def test_to_json_and_from_json_are_inverse(config):
    launch = {name: getattr(TrainConfig(), name) for name in LAUNCH}  # is not written
    assert repr(from_json(to_json(config))) == repr(replace(config, **launch))  # of NaNs, too


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        to_json(TrainConfig()).replace("epochs", "passes"),
        to_json(TrainConfig())[:99],
        to_json(TrainConfig()).replace('"transforms": []', '"transforms": [1]'),
    ],
)
def test_from_json_refuses_something_else(text):
    with pytest.raises(UserError, match="not a config of this version of jaxcnn"):
        from_json(text)


def test_to_json_keeps_what_python_callers_write():
    config = TrainConfig(
        seed=np.int64(3),
        ema_decay=np.float32(0.5),
        pixel_mean=np.array([0.25, 0.5]),
        transforms=(Affine(degrees=10, scale=np.float64(0.1)), RandomCrop(np.int32(24))),
        workdir=pathlib.Path("runs/mine"),
    )
    check(config)
    written = from_json(to_json(config))
    assert not differences(config, written) and written.workdir == "runs/mine"
    assert to_json(written) == to_json(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("transforms", (RandomCrop(2.5),), "the size of RandomCrop"),
        ("transforms", ("flip",), "'flip' is no transform"),
        ("model", 3j, "a field has a value that config.json cannot hold: 3j is no number, text or"),
        ("workdir", b"runs/x", "b'runs/x' is no number, text or path"),
        ("optimizer", OptimizerConfig(learning_rate=abs), "built-in function abs> is no number"),
    ],
)
def test_check_refuses_what_json_cannot_hold(field, value, message):
    with pytest.raises(UserError, match=message):
        check(replace(TrainConfig(), **{field: value}))


def changed(value):
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case tuple():
            return (*value, 0.5)
        case str() | None:
            return "other"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TrainConfig)])
def test_differences_are_of_what_decides_the_numbers(name):
    ours = TrainConfig()
    if name == "optimizer":
        theirs = replace(ours, optimizer=OptimizerConfig(learning_rate=0.5))
        expected = {"optimizer.learning_rate": (1e-3, 0.5)}
    elif name == "transforms":
        theirs = replace(ours, transforms=(HorizontalFlip(), RandomCrop(24)))
        expected = {"transforms": ([], ["flip", "crop:size=24"])}
    else:
        theirs = replace(ours, **{name: changed(getattr(ours, name))})
        expected = {name: (getattr(ours, name), getattr(theirs, name))}
    assert theirs != ours
    found = differences(ours, theirs)
    assert json.dumps(found) == json.dumps({} if name in FREE | LAUNCH else expected)


def test_differences_take_a_list_for_a_tuple():
    config = TrainConfig(pixel_mean=[0.5], optimizer=OptimizerConfig(rate_steps=[[1, 0.1]]))
    assert not differences(config, from_json(to_json(config)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_size", "8"),
        ("epochs", -1),
        ("epochs", 2.5),
        ("eval_batch_size", 0),
        ("eval_every_epochs", 0),
        ("eval_views", 3),
        ("dtype", "float64"),
        ("on_bad_image", "Skip"),
        ("channels", 2),
        ("max_value", 0.0),
        ("hold_out", 1.0),
        ("optimizer.name", "SGD"),
        ("optimizer.schedule", "step"),
        ("log_every_steps", 0),
        ("checkpoint_every_steps", 0),
        ("seed", -1),
        ("seed", 0.5),
        ("seed", 2**32),
        ("pixel_std", (0.5, 0.0, 0.5)),
        ("pixel_std", (math.nan,)),
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
        ("optimizer.layer_decays", (("conv1", 0.1), ("conv1", 0.2))),
        ("optimizer.clip_norm", -1.0),
        ("optimizer.clip_norm", math.nan),
        ("optimizer.accumulate", 0),
        ("optimizer.accumulate", 1.5),
        ("model_axis", 0),
        ("coordinator", "localhost:1234"),  # without --multihost, as the next two
        ("num_processes", 2),
        ("process_id", 0),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("ema_decay", 1.0),
        ("ema_decay", math.nan),
        ("optimizer.warmup_epochs", -1.0),
        ("optimizer.warmup_epochs", 10.0),
        ("optimizer.schedule", "steps"),
        ("pixel_mean", (math.nan,)),
    ],
)
def test_check_refuses_values_out_of_range_by_flag(field, value):
    match field.split("."):
        case [name]:
            config = replace(TrainConfig(), **{name: value})
        case ["optimizer", name]:
            config = TrainConfig(optimizer=replace(OptimizerConfig(), **{name: value}))
    with pytest.raises(UserError, match=f"^--{field.replace('_', '-')} is "):
        check(config)


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
def test_check_refuses_options_of_other_optimizers(field, value, rules, rule):
    optimizer = replace(OptimizerConfig(name=rule), **{field: value})
    if rule in rules:
        decay = {"weight_decay": 0.1} if field == "decay_biases" else {}
        check(TrainConfig(optimizer=replace(optimizer, **decay)))
    else:
        default = re.escape(str(getattr(OptimizerConfig(), field)))
        message = f"{rule} has none: choose .* {' or '.join(rules)}, or have it at {default}$"
        with pytest.raises(UserError, match=message):
            check(TrainConfig(optimizer=optimizer))


def test_check_refuses_decay_of_biases_without_decay():
    with pytest.raises(UserError, match="decay-biases goes with an --optimizer.weight-decay above"):
        check(TrainConfig(optimizer=OptimizerConfig(name="sgd", decay_biases=True)))
    of_layers = OptimizerConfig(name="sgd", decay_biases=True, layer_decays=(("conv1", 0.1),))
    check(TrainConfig(optimizer=of_layers))


def test_from_json_gives_newer_fields_their_defaults():
    fields = json.loads(to_json(TrainConfig(epochs=3)))
    for name in ("label_smoothing", "ema_decay", "dtype"):
        del fields[name]
    newer = "bias_rate nesterov weight_decay layer_decays decay_biases clip_norm accumulate"
    for name in newer.split():
        del fields["optimizer"][name]
    assert from_json(json.dumps(fields)) == TrainConfig(epochs=3)


def test_check_refuses_rate_steps_without_their_schedule():
    optimizer = OptimizerConfig(schedule="cosine", rate_steps=((1.0, 0.5),))
    with pytest.raises(UserError, match="schedule is cosine and --optimizer.rate-steps"):
        check(TrainConfig(optimizer=optimizer))


@pytest.mark.parametrize("rate_steps", [((2, 0.5), (2, 0.1)), ((1, 0.5),), ((2, 0.0),)])
def test_check_refuses_rate_steps_out_of_order(rate_steps):
    optimizer = OptimizerConfig(schedule="steps", warmup_epochs=1.0, rate_steps=rate_steps)
    with pytest.raises(UserError, match="^--optimizer.rate-steps is "):
        check(TrainConfig(optimizer=optimizer))


def test_check_accepts_the_ends_of_the_ranges():
    check(TrainConfig(batch_size=1, epochs=1, eval_batch_size=1, log_every_steps=1, seed=0))
    check(TrainConfig(eval_every_epochs=1, checkpoint_every_steps=1, seed=2**32 - 1))
