"""Answers that are averaged over views and over networks, and nearest images, by hand."""

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import random_network, write_run

from jaxcnn import PRESETS
from jaxcnn.data.transforms import RandomCrop
from jaxcnn.errors import UserError
from jaxcnn.evaluation import predict
from jaxcnn.studies import answer_measures, answers, runs

CONFIG = dataclasses.replace(PRESETS["lenet5-mnist5k"].config, epochs=1)
NAMES = {0: "a", 1: "b", 2: "of/the/user", 3: "c", 4: "d"}


@pytest.fixture
def five_runs(tmp_path, monkeypatch):
    """The current folder, with finished runs of five seeds, and some that are not theirs."""
    monkeypatch.chdir(tmp_path)
    for seed, name in NAMES.items():
        write_run(Path("runs", name), dataclasses.replace(CONFIG, seed=seed), 0.9)
    other = dataclasses.replace(CONFIG, seed=1, epochs=2)
    write_run(Path("runs/aa"), other, 0.9)
    write_run(Path("runs/ab"), dataclasses.replace(CONFIG, seed=5), 0.9, finished=False)


def test_runs_of_seeds_differ_in_the_seed_alone(five_runs):
    found = runs.runs_of_seeds(Path("runs/a"), [4, 0, 2])
    assert found == [Path("runs/d"), Path("runs/a"), Path("runs/of/the/user")]
    with pytest.raises(UserError, match="no finished run of runs/a with seed 5, 7; train it"):
        runs.runs_of_seeds(Path("runs/a"), [0, 5, 7])


def test_ensemble_averages_the_probabilities_of_the_seeds_that_follow(five_runs, monkeypatch):
    of_label = {"a": 0.9, "b": 0.2, "of/the/user": 0.2, "c": 0.2, "d": 0.99}  # by seed

    def load(run):
        p = of_label[str(run.relative_to("runs"))]
        return SimpleNamespace(log_probs=lambda images: np.log([[1 - p, p, 1e-9]]))

    monkeypatch.setattr(predict, "load", load)
    monkeypatch.setattr(answer_measures, "test_images", lambda run: (None, np.array([1])))
    errors = {
        (name, number): answer_measures.ensemble(Path("runs", name), number=number)["test_error"]
        for name in of_label
        for number in (1, 2, 3, 5)
    }
    assert [errors[name, 1] for name in of_label] == [0, 100, 100, 100, 0]
    assert errors["a", 2] == 0 and errors["a", 3] == 100  # means 0.55 and 0.43
    assert errors["d", 2] == 0 and errors["d", 3] == 0  # of seeds 4, 0 and 1
    assert errors["c", 2] == 0 and errors["c", 3] == 0  # means 0.60 and 0.70
    assert {errors[name, 5] for name in of_label} == {
        100
    }  # mean 0.498; the geometric mean is for the label


def test_reduction_is_relative_to_the_error_of_one():
    for study in (answers.VIEWS, answers.ENSEMBLES):
        [reduction] = study.derived
        errors = {arm.name: {"test_error": 20.0} for arm in study.arms}
        errors[study.arms[-1].name] = {"test_error": 15.0}
        assert reduction.compute(errors) == pytest.approx(25)
        errors[study.arms[0].name] = {"test_error": 0.0}
        assert math.isnan(reduction.compute(errors))


def test_views_average_the_answers_for_parts_of_an_image(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(40, 32, 32, 1), dtype=np.uint8)
    trained = random_network("lenet5-tanh", image_shape=(32, 32, 1), transforms=(RandomCrop(28),))
    monkeypatch.setattr(
        predict, "load", lambda run, views: predict.Classifier(trained, views=views)
    )
    whole = predict.Classifier(trained)
    corners = [
        images[:, i : i + 28, j : j + 28] for i, j in [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]
    ]
    parts = corners + [part[:, :, ::-1] for part in corners]
    probabilities = [whole.probabilities_of_preprocessed(normalized(trained, x)) for x in parts]
    labels = np.mean(probabilities, 0).argmax(-1)
    monkeypatch.setattr(answer_measures, "test_images", lambda run: (images, labels))
    assert answer_measures.views(Path("run"), number=10) == {"test_error": 0}
    one = answer_measures.views(Path("run"), number=1)["test_error"]
    assert one == pytest.approx(100 * (probabilities[0].argmax(-1) != labels).mean()) and one > 0


def normalized(trained, images):
    mean, std = trained.config.pixel_mean, trained.config.pixel_std
    return ((images / 255 - mean) / std).astype(np.float32)
