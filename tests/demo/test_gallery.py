"""The digits that a page holds: ordinary ones of every class, and the hardest."""

import dataclasses

import numpy as np
import pytest
from helpers import save_image

from jaxcnn.demo.gallery import HARDEST, ORDINARY, choose_gallery
from jaxcnn.evaluation.predict import load


@pytest.fixture(scope="module")
def classifier():
    return load(pretrained="lenet5-mnist")


def test_gallery_holds_the_hardest_and_ordinary_digits_of_every_class(classifier):
    images, labels, num_hard = choose_gallery(classifier)
    assert images.shape == (ORDINARY + HARDEST, 28, 28, 1) and num_hard == HARDEST
    assert labels[:10].tolist() == list(range(10))
    log_probs = classifier.log_probs(images)
    right = log_probs.argmax(-1) == labels
    assert right[:ORDINARY].all() and not right[ORDINARY:].any()
    loss = -log_probs[np.arange(20), labels]
    assert (np.diff(loss[ORDINARY:]) <= 0).all() and loss[ORDINARY:].min() > loss[:ORDINARY].max()


def test_gallery_of_other_images_is_of_the_run_s_own_test_set(classifier, tmp_path):
    for name in "0123456789":
        for split in ("train", "val"):
            save_image(tmp_path / split / name / "a.png", 28, 28, seed=int(name))
    other = load(pretrained="lenet5-mnist")
    config = dataclasses.replace(
        classifier.trained.config,
        **{
            "dataset": f"folder:{tmp_path}",
            "channels": 1,
            "stream_size": 28,
            "stream_min_size": 28,
        },
    )
    other.trained = classifier.trained._replace(config=config)
    images, labels, num_hard = choose_gallery(other)
    assert 6 <= len(images) <= 10 and num_hard == 6 and images.shape[1:] == (28, 28, 1)
    assert len({*labels.tolist()}) == len(labels)


def test_gallery_is_empty_without_data_of_the_run(classifier, tmp_path, capsys):
    config = dataclasses.replace(classifier.trained.config, dataset=f"folder:{tmp_path}/none")
    other = load(pretrained="lenet5-mnist")
    other.trained = classifier.trained._replace(config=config)
    assert len(choose_gallery(other).images) == 0
    assert "The page has no gallery" in capsys.readouterr().out
