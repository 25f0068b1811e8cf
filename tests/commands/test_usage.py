"""The help page of train.py: every field, a preset's values, the width of the terminal."""

import dataclasses

import pytest

from jaxcnn import PRESETS
from jaxcnn.commands.usage import GROUPS, help_page
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.errors import flag

FIELDS = {field.name for field in dataclasses.fields(TrainConfig)}
FIELDS -= {"preset", "optimizer", "continued_from"}  # they have no flag
FIELDS |= {f"optimizer.{field.name}" for field in dataclasses.fields(OptimizerConfig)}


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("preset", PRESETS)
def test_help_page_has_every_flag_and_preset_once_and_fits(preset, columns):
    lines = help_page("train.py", preset, columns).splitlines()
    assert max(map(len, lines)) <= columns
    if columns >= 80:
        assert len(lines) <= 100 + len(PRESETS)
    entries = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    for field in FIELDS:
        prefix, dot, name = field.rpartition(".")
        names = {flag(field), flag(f"{prefix}{dot}no_{name}")}
        assert sum(entry in names for entry in entries) == 1, field
    for name in PRESETS:
        assert entries.count(name) == 1
    assert {"--list", "--seeds", "--continue"} <= {*entries}


def test_help_page_shows_the_values_of_the_preset():
    page = " ".join(help_page("train.py", "lenet5-1998-mnist", 80).split())
    for text in (
        "--optimizer.name diagonal-lm Update rule: adam, adamw, sgd, sgd-2012, diagonal-lm",
        "--optimizer.rate-steps 2 0.4 5 0.2 8 0.1 12 0.02 ",
        "--optimizer.mu 0.4 Constant added to the curvature (diagonal-lm)",
        "--workdir DIR Folder of the run ",
        "--epochs 20 Passes over the training set ",
    ):
        assert text in page
    page = " ".join(help_page("train.py", "alexnet-cifar10-32", 80).split())
    assert "--transforms crop:padding=4 flip resize," in page
    assert "--optimizer.no-nesterov Turn off: Nesterov momentum (sgd)" in page


def test_groups_name_fields_that_exist():
    names = [name for group in GROUPS.values() for name in group.split()]
    assert len({*names}) == len(names) and {*names} <= FIELDS
