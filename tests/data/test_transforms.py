"""Transforms as dataclasses and as text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxcnn.data.transforms import (
    TRANSFORMS,
    Affine,
    Cutout,
    HorizontalFlip,
    RandomCrop,
    Transform,
    from_text,
    to_text,
)
from jaxcnn.errors import UserError


@given(st.from_type(Transform))
def test_to_text_and_from_text_are_inverse(transform):
    assert repr(from_text(to_text(transform))) == repr(transform)  # of NaNs, too


@pytest.mark.parametrize("name", TRANSFORMS)
def test_from_text_takes_a_name_for_the_defaults(name):
    assert from_text(name) == TRANSFORMS[name]()
    assert to_text(TRANSFORMS[name]()) == name


def test_from_text_reads_what_people_write():
    assert from_text("flip") == HorizontalFlip()
    assert from_text("crop:size=24,padding=4") == RandomCrop(24, 4)
    assert from_text("affine:degrees=10,translate=2") == Affine(degrees=10.0, translate=2.0)
    assert to_text(Affine(degrees=10.0, shear=0.5)) == "affine:degrees=10.0,shear=0.5"
    assert to_text(Cutout(16)) == "cutout:size=16"


def test_to_text_is_the_same_for_equal_transforms():
    for ten in (10, np.float64(10), np.int32(10)):
        assert to_text(Affine(degrees=ten)) == to_text(Affine(degrees=10.0))
    assert to_text(RandomCrop(np.int64(24))) == "crop:size=24"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomCrop(2.5), r"the size of RandomCrop\(size=2.5, padding=0\) must be of type int"),
        (RandomCrop(24.0), "must be of type int"),
        (RandomCrop(float("inf")), "must be of type int"),
        (RandomCrop("24"), "must be of type int"),
        (Affine(None), r"the degrees of Affine\(.*\) must be of type float"),
        ("flip", r"'flip' is no transform, as jaxcnn.data.transforms.HorizontalFlip\(\) is"),
    ],
)
def test_to_text_refuses_values_of_other_types(transform, message):
    with pytest.raises(UserError, match=message):
        to_text(transform)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cropp:size=24", "no transform is called 'cropp'; did you mean crop"),
        ("", "no transform is called ''; there are resize, crop, flip"),
        ("crop:sise=24", "'sise=24' in 'crop:sise=24' .* it takes size: int, padding: int"),
        ("crop:size=2.5", "'size=2.5' in 'crop:size=2.5' is not a field of crop with its value"),
        ("crop:size", "'size' in 'crop:size' is not a field"),
        ("flip:probability=1", "it takes nothing, as in 'flip'"),
    ],
)
def test_from_text_refuses_other_texts(text, message):
    with pytest.raises(UserError, match=message):
        from_text(text)
