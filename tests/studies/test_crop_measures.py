"""Answers to crops beside the centre, by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxcnn.data.datasets import Dataset
from jaxcnn.evaluation import predict
from jaxcnn.studies import alexnet_layers, crop_measures


def test_crops_move_over_real_pixels_in_four_directions(monkeypatch):
    rows = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None], (3, 32, 32, 1))
    labels = np.array([16, 17, 16], np.int32)
    data = Dataset("rows", rows, labels, rows[:2], labels[:2], tuple("ab"))
    seen = []

    def log_probs(images):
        crop = images[:, 4:28, 4:28, 0]
        assert (np.diff(crop.astype(int), axis=1) == 1).all()  # no pixel from the other border
        seen.append(crop[0, 0, 0])
        return np.eye(32)[crop[:, 12, 0]]

    monkeypatch.setattr(crop_measures, "dataset_of", lambda config: data)
    monkeypatch.setattr(crop_measures.workdirs, "read_config", lambda run: None)
    monkeypatch.setattr(crop_measures, "test_error", lambda run: {"test_error": 50.0})
    monkeypatch.setattr(
        predict, "load", lambda run: SimpleNamespace(log_probs_of_one_view=log_probs)
    )
    measured = crop_measures.crops(Path("run"))
    assert measured["training_error"] == pytest.approx(100 / 3)
    assert measured["gap"] == pytest.approx(50 - 100 / 3)
    assert measured["consistency"] == [50] * 4  # rows move up and down, not to the sides
    assert {*seen} == {*range(9)} and measured["consistency_2"] == 50


def test_effects_of_layers_are_differences_of_the_right_arms():
    expected = {alexnet_layers.POOLING.name: [9 - 4, 4 - 0], alexnet_layers.LRN.name: [4, 9 - 4]}
    for study in (alexnet_layers.POOLING, alexnet_layers.LRN):
        arms = {arm.name: {"test_error": float(i**2)} for i, arm in enumerate(study.arms)}
        assert [each.compute(arms) for each in study.derived] == expected[study.name]
