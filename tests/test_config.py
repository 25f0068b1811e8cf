"""The fields of a config: their JSON, and the differences between two runs."""

import dataclasses
import json
import pathlib
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import TRANSFORMS
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxcnn.config import (
    ADDED,
    FORMAT,
    OptimizerConfig,
    TrainConfig,
    differences,
    from_json,
    to_dict,
    to_json,
)
from jaxcnn.data.transforms import Affine, HorizontalFlip, RandomCrop
from jaxcnn.errors import UserError

FREE = {"preset", "card", "workdir", "data_dir", "manual_dir", "compilation_cache"}
FREE |= {"on_bad_image", "eval_batch_size", "continued_from", "on_nonfinite"}
FREE.add("checkpoint_every_steps")
LAUNCH = {"multihost", "coordinator", "num_processes", "process_id", "model_axis", "debug_nans"}


POSITIVE = st.integers(1, 2**31 - 1)
FRACTION = st.floats(0, 1, exclude_max=True)
CONFIGS = st.builds(
    TrainConfig,
    preset=st.text(),
    dataset=st.text(),
    transforms=st.lists(TRANSFORMS).map(tuple),
    pixel_mean=st.lists(st.floats(-1, 1), min_size=1).map(tuple),
    optimizer=st.builds(OptimizerConfig, learning_rate=st.floats(1e-9, 1), accumulate=POSITIVE),
    batch_size=POSITIVE,
    label_smoothing=FRACTION,
    ema_decay=FRACTION,
    class_weights=st.sampled_from(["none", "balanced", "sampled"]),
    seed=st.integers(0, 2**32 - 1),
    eval_views=st.sampled_from([1, 2, 5, 10]),
    workdir=st.none() | st.text(),
    compilation_cache=st.booleans(),
)


@settings(deadline=None)  # a loaded machine is slow
@given(CONFIGS)
def test_to_json_and_from_json_are_inverse(config):
    assert repr(from_json(to_json(config))) == repr(config)


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
        ('"constant"', '"steps"', "differs from its sha256"),
        (
            f'"format": {FORMAT}',
            f'"format": {FORMAT + 1}',
            f"expected at most {FORMAT}; update jaxcnn",
        ),
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
    written = from_json(to_json(config))
    assert not differences(config, written) and written.workdir == "runs/mine"
    assert to_json(written) == to_json(config)


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


def test_differences_leave_out_the_length_before_a_run_was_continued():
    longer = TrainConfig(epochs=20, continued_from=(5, 10))
    assert not differences(longer, TrainConfig(epochs=10))
    assert differences(longer, TrainConfig(epochs=7)) == {"epochs": (20, 7)}
    assert differences(TrainConfig(epochs=10), longer) == {"epochs": (10, 20)}


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
    for number in sorted(ADDED, reverse=True):
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
