"""Transforms as dataclasses and as text."""

import helpers
import numpy as np
import pytest
from hypothesis import given, settings

from jaxcnn.data.transforms import (
    TRANSFORMS,
    Affine,
    Cutout,
    HorizontalFlip,
    Invert,
    PCAColor,
    RandomCrop,
    from_text,
    to_text,
)
from jaxcnn.errors import UserError


@settings(deadline=None)  # a loaded machine is slow
@given(helpers.TRANSFORMS)
def test_to_text_and_from_text_are_inverse(transform):
    assert repr(from_text(to_text(transform))) == repr(transform)  # -0.0 is not 0.0


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
    assert from_text("invert:p=0.25") == Invert(0.25)


def test_to_text_is_the_same_for_equal_transforms():
    for ten in (10, np.float64(10), np.int32(10)):
        assert to_text(Affine(degrees=ten)) == to_text(Affine(degrees=10.0))
    assert to_text(RandomCrop(np.int64(24))) == "crop:size=24"


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (RandomCrop(2.5), "^size of crop is 2.5; expected a whole number$"),
        (RandomCrop(24.0), "size of crop is 24.0; expected a whole number"),
        (RandomCrop(True), "size of crop is True; expected a whole number"),
        (RandomCrop("24"), "size of crop is '24'; expected a whole number"),
        (RandomCrop(abs), "size of crop is '<built-in function abs>'; expected a whole number"),
        (RandomCrop(0), r"size of crop is 0; expected in \[1, 8192\]"),
        (RandomCrop(28, padding=28), "padding of crop is 28; expected less than its size, 28"),
        (RandomCrop(28, padding=-1), r"padding of crop is -1; expected in \[0, 8192\]"),
        (Affine(None), "degrees of affine is None; expected a number"),
        (Affine(scale=1.0), r"scale of affine is 1.0; expected in \[0, 1\)"),
        (Affine(squeeze=1), r"squeeze of affine is 1.0; expected in \[0, 1\)"),
        (Invert(1.5), r"p of invert is 1.5; expected in \[0, 1\]"),
        (Affine(shear=np.nan), r"shear of affine is nan; expected in \[0, 90\)"),
        (PCAColor(-0.1), r"std of pca-color is -0.1; expected in \[0, 10\]"),
        ("flip", "^'flip' is not a transform; expected a value such as jaxcnn.data.transforms.Hor"),
    ],
)
def test_to_text_refuses_values_of_other_types(transform, message):
    with pytest.raises(UserError, match=message):
        to_text(transform)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cropp:size=24", "no transform is called 'cropp'; did you mean crop"),
        ("", "no transform is called ''; there are resize, crop, center-crop, flip"),
        (
            "crop:sise=24",
            "has 'sise=24'; expected .* as in crop:size=32,padding=0; did you mean crop:size=24$",
        ),
        ("crop:size=2.5", "^'crop:size=2.5' has 'size=2.5'; expected fields each once"),
        ("crop:size", "'crop:size' has 'size'; expected fields"),
        ("crop:", "'crop:' has ''; expected fields"),
        (
            "crop:size=20,size=24",
            "has 'size=24'; expected fields each once, as in crop:size=32,padding=0$",
        ),
        ("crop:size=99999", r"size of crop is 99999; expected in \[1, 8192\]"),
        ("flip:probability=1", "'flip:probability=1' has 'probability=1'; expected only 'flip'"),
    ],
)
def test_from_text_refuses_other_texts(text, message):
    with pytest.raises(UserError, match=message):
        from_text(text)
