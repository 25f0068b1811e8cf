"""The fields of a config: bounds, JSON, and the differences between two runs."""

import dataclasses
import json
import math
import pathlib
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcnn.config import (
    ADDED,
    OptimizerConfig,
    TrainConfig,
    check,
    differences,
    from_json,
    settled,
    to_dict,
    to_json,
)
from jaxcnn.data.transforms import Affine, HorizontalFlip, RandomCrop, Transform
from jaxcnn.errors import UserError

FREE = {"preset", "card", "workdir", "data_dir", "manual_dir", "compilation_cache"}
FREE |= {"on_bad_image", "eval_batch_size"}
LAUNCH = {"multihost", "coordinator", "num_processes", "process_id", "model_axis"}


POSITIVE = st.integers(min_value=1)
FRACTION = st.floats(0, 1, exclude_max=True)
CONFIGS = st.builds(
    TrainConfig,
    preset=st.text(),
    dataset=st.text(),
    transforms=st.lists(st.from_type(Transform)).map(tuple),
    pixel_mean=st.lists(st.floats(-1, 1), min_size=1).map(tuple),
    optimizer=st.builds(OptimizerConfig, learning_rate=st.floats(1e-9, 1), accumulate=POSITIVE),
    batch_size=POSITIVE,
    label_smoothing=FRACTION,
    ema_decay=FRACTION,
    class_weights=st.sampled_from(["none", "balanced"]),
    seed=st.integers(0, 2**32 - 1),
    eval_views=st.sampled_from([1, 2, 5, 10]),
    workdir=st.none() | st.text(),
    compilation_cache=st.booleans(),
)


@given(CONFIGS)
def test_to_json_and_from_json_are_inverse(config):
    assert repr(from_json(to_json(config))) == repr(config)  # of NaNs in transforms, too


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{", "", "not JSON"),
        ('"dataset": "mnist"', '"dataset": "mnisu"', "differs from its sha256"),
        ('  "dataset": "mnist",\n', "", "^dataset is missing$"),
        ("epochs", "passes", "passes is not a field of this version"),
        ('"seed": 0', '"seed": "0"', "^seed is '0'; expected a whole number$"),
        ('"seed": 0', '"seed": -1', r"^seed is -1; expected in \[0, 2\^32\)$"),
        ('"mu": 0.02', '"mu": true', "^optimizer.mu is True; expected a number$"),
        ('"mu": 0.02', f'"mu": {10**400}', "^optimizer.mu is 1000.*; expected a number$"),
        ('"transforms": []', '"transforms": [1]', r"transforms\[0\] is 1; expected a text"),
        ('"transforms": []', '"transforms": ["flop"]', "'flop'"),
        ('"adam"', '"adams"', "^optimizer.name is 'adams'; expected one of adam, "),
        ('"constant"', '"steps"', "schedule is steps"),
        ('"format": 7', '"format": 8', "expected at most 7; update jaxcnn"),
        ('"optimizer": {', '"optimizer": {"a": ' + "[" * 9999, "not JSON"),
    ],
)
def test_from_json_says_which_field_is_wrong(old, new, message):
    text = to_json(TrainConfig())
    assert old in text
    with pytest.raises(UserError, match=message):
        from_json(text.replace(old, new))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", to_json(TrainConfig())[:99], b"\xff\xfe"])
def test_from_json_refuses_something_else(text):
    with pytest.raises(UserError, match="JSON|optimizer is None"):
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
        (
            "model",
            3j,
            "a field has a value that config.json cannot hold: 3j is not a number, a text or",
        ),
        ("workdir", b"runs/x", "b'runs/x' is not a number, a text or a path"),
        ("optimizer", OptimizerConfig(learning_rate=abs), "built-in function abs> is not a number"),
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
    optimizer = OptimizerConfig(schedule="steps", rate_steps=[[1, 0.1]])
    config = TrainConfig(pixel_mean=[0.5], optimizer=optimizer)
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
        ("class_weights", "equal"),
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


def unnumbered(*missing):
    """Return config.json as it was before files had a format, without the fields `missing`."""
    fields = json.loads(to_json(TrainConfig(dataset="mnist5k")))
    del fields["format"], fields["sha256"]
    for name in missing:
        group = fields["optimizer"] if name.startswith("optimizer.") else fields
        del group[name.removeprefix("optimizer.")]
    return json.dumps(fields)


def test_from_json_gives_fields_of_later_formats_their_defaults():
    missing: tuple[str, ...] = ()
    for number in (7, 5, 4, 3, 2):
        missing += ADDED[number]
        assert from_json(unnumbered(*missing)) == TrainConfig(dataset="mnist5k")


@pytest.mark.parametrize("name", ["dataset", "ema_decay", "optimizer.mu", "optimizer.name"])
def test_from_json_refuses_a_missing_field_that_its_version_had(name):
    with pytest.raises(UserError, match=f"^{name} is missing$"):
        from_json(unnumbered(name))


def test_formats_name_the_fields_that_were_added():
    # If this fails, a field was added: raise FORMAT, and name the field in ADDED.
    old_run = pathlib.Path(__file__).parent / "workdir" / "run-of-0.1.0.tar.xz"
    with tarfile.open(old_run) as archive:
        first = json.load(archive.extractfile("run/config.json"))
    names = {*first, *(f"optimizer.{name}" for name in first["optimizer"])} - {"card"}
    names |= {name for number, added in ADDED.items() if number > 4 for name in added}
    now = to_dict(TrainConfig())
    assert names == {*now, *(f"optimizer.{name}" for name in now["optimizer"])} - {"format"}


def test_settled_returns_plain_types_and_keeps_launch_fields():
    config = TrainConfig(seed=np.int64(3), pixel_mean=[np.float32(0.5)], multihost=True)
    result = settled(config)
    assert type(result.seed) is int and result.pixel_mean == (0.5,) and result.multihost
    with pytest.raises(UserError, match="^model is 5; expected a text"):
        settled(TrainConfig(model=5))


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
