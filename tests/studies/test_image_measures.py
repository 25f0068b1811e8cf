"""Images that are scaled, rotated and moved for the studies, and what is read from networks."""

import dataclasses

import numpy as np
import pytest

from jaxcnn import PRESETS
from jaxcnn.studies import image_measures as measures

rng = np.random.default_rng(0)


def test_resized_by_one_and_rotated_by_zero_change_nothing():
    images = rng.integers(256, size=(3, 9, 9, 1), dtype=np.uint8)
    assert (measures.resized(images, 1.0) == images).all()
    assert (measures.rotated(images, 0.0) == images).all()


def test_rotated_by_a_right_angle_turns_counterclockwise():
    images = rng.integers(256, size=(2, 9, 9, 1), dtype=np.uint8)
    assert (measures.rotated(images, 90.0) == np.rot90(images, axes=(1, 2))).all()
    assert (measures.rotated(images, -90.0) == np.rot90(images, -1, axes=(1, 2))).all()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_resized_scales_a_square_about_the_centre(scale):
    images = np.zeros((1, 28, 28, 1), np.uint8)
    images[:, 9:19, 9:19] = 200
    side = np.sqrt(measures.resized(images, scale).sum() / 200)
    assert side == pytest.approx(10 * scale, rel=0.02)
    rows = measures.resized(images, scale)[0, ..., 0].sum(1, dtype=float)
    assert rows == pytest.approx(rows[::-1])


@pytest.mark.parametrize("side", range(4))
def test_to_border_moves_the_ink_to_a_side(side):
    images = np.zeros((2, 28, 28, 1), np.uint8)
    images[0, 8:20, 9:19] = 200
    images[1, 2:15, 4:24] = 100
    for margin in (0, 3):
        for image, moved in zip(images, measures.to_border(images, side, margin), strict=True):
            rows, columns = (np.flatnonzero(moved[..., 0].any(axis)) for axis in (1, 0))
            margins = (rows[0], 27 - rows[-1], columns[0], 27 - columns[-1])
            assert margins[side] == margin and moved.sum() == image.sum()
    unmoved = measures.to_border(images[:1], side, (8, 8, 9, 9)[side])
    assert (unmoved == images[:1]).all()


def test_dataset_of_a_config_has_the_images_that_its_run_is_trained_on():
    config = PRESETS["lenet5-mnist5k"].config
    config = dataclasses.replace(config, train_examples=64, val_fraction=0.1)
    data = measures.dataset_of(config)
    assert len(data.train_images) == 64 and len(data.test_images) == 1000
    assert data.val_images is None
