"""Images that are scaled and rotated for the studies."""

import numpy as np
import pytest

from jaxcnn.studies import measures

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
