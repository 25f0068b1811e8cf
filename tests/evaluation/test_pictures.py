"""The pictures that an evaluation draws."""

import json

import chex
import numpy as np
import pytest
from PIL import Image

from jaxcnn.evaluation import pictures
from jaxcnn.training import report as training_report

DIGITS = tuple("0123456789")


def test_save_mistakes_begins_with_the_most_confident(figures, tmp_path):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(9, 1).repeat(9, 2)
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([1, 1, 1, 0])  # the third is right
    pictures.save_mistakes(
        images, labels, probabilities, ("cat", "dog"), tmp_path, count=2, subject="my run"
    )
    (figure,) = figures
    title = "my run\nThe 2 most confident of 3 wrong answers in 4: probability, true class, image"
    assert figure.get_suptitle() == title
    shown = figure.axes
    titles = [axes.get_title() for axes in shown]
    assert titles == ["cat (90.0%)\nis dog\n#1", "dog (70.0%)\nis cat\n#3"]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in shown] == [1, 3]


def test_save_mistakes_names_files_and_draws_no_empty_axes(figures, tmp_path):
    images = np.zeros((3, 9, 9, 3), np.uint8)
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    files = ["test/dog/a.png", "test/dog/a_name_that_is_too_long.png", "test/dog/c.png"]
    names = ("cat", "dog")
    pictures.save_mistakes(images, np.ones(3, int), probabilities, names, tmp_path, files=files)
    pictures.save_mistakes(images, np.array([0, 0, 1]), probabilities, names, tmp_path)
    some, none = figures
    assert [axes.get_title().splitlines()[2] for axes in some.axes] == ["…_too_long.png", "a.png"]
    assert some.get_suptitle() == "2 wrong answers in 3: probability, true class, image"
    assert none.axes == [] and none.get_suptitle() == "0 wrong answers in 3"


def test_save_confusion_has_the_true_classes_in_rows(figures, tmp_path):
    pictures.save_confusion(np.array([[5, 2], [0, 7]]), ("cat", "dog"), tmp_path)
    (axes,) = figures[0].axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert texts == {"5": (0, 0), "2": (1, 0), "7": (1, 1)}  # columns across, rows down
    assert axes.get_title() == "2 errors in 14 images"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "true class")
    assert axes.images[0].get_array().filled(0).tolist() == [[0, 2], [0, 0]]


def test_label_cuts_long_names():
    assert pictures.label("automobile", 10) == "automobile"
    assert pictures.label("automobiles", 10) == "automobil…"


@pytest.mark.parametrize("name", ["$", "$$", "$x_$", r"\$", "a$b^c$", "\udcff.png", "\0", "a\nb"])
def test_pictures_draw_class_names_that_look_like_mathtext(name, tmp_path):
    names, images = (name, "dog"), np.zeros((2, 4, 4, 1), np.uint8)
    pictures.save_confusion(np.eye(2, dtype=int), names, tmp_path / "confusion.png")
    probabilities = np.array([[0.1, 0.9], [0.9, 0.1]])
    pictures.save_mistakes(images, np.arange(2), probabilities, names, tmp_path / "mistakes.png")


def test_save_filters_scales_each_by_its_largest_weight(figures, tmp_path):
    kernel = np.array([[0.2, 0.1], [-4.0, 1.0], [0.0, 0.0]], np.float32).T.reshape(1, 2, 1, 3)
    pictures.save_filters(kernel, "C1", tmp_path / "filters.png")
    (axes,) = figures[0].axes
    expected = [
        [0.9, 0.7, 1.0, 0.1, 0.6],
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [0.5, 0.5, 1.0, 1.0, 1.0],
    ]
    shown = np.asarray(axes.images[0].get_array()).squeeze()
    chex.assert_trees_all_close(shown, np.array(expected), atol=1e-6)
    assert "3 kernels of C1, 1x2x1" in axes.get_title()


def test_save_feature_maps_has_a_row_and_a_scale_for_each_layer(figures, tmp_path):
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    maps = {"conv1": np.array([[[1.0, -3.0]], [[0.5, 2.0]]]), "conv2": np.zeros((1, 1, 20))}
    pictures.save_feature_maps(image, "a cat", maps, tmp_path / "feature_maps.png")
    picture, first, second = figures[0].axes
    assert picture.get_title() == "a cat"
    chex.assert_trees_all_equal(np.asarray(picture.images[0].get_array()), image)
    (row,) = first.images
    shown = row.get_array().filled(np.nan).squeeze()
    nan = np.nan  # between maps, and in the place of those that a layer has not
    np.testing.assert_array_equal(shown[:, :4], [[1.0, nan, -3.0, nan], [0.5, nan, 2.0, nan]])
    assert shown.shape == (2, 31) and np.isnan(shown[:, 4:]).all()
    assert row.get_clim() == (-3, 3)
    assert first.get_ylabel() == "conv1\n2x1x2" and second.get_ylabel() == "conv2\n1x1x20"
    assert second.images[0].get_array().count() == pictures.MAPS_SHOWN


def test_save_shifts_draws_percentages_over_pixels(figures, tmp_path):
    path, subject = tmp_path / "shifts.png", "/long" * 20 + "/run, step 3"
    pictures.save_shifts([0.9, 0.8, 0.525], "all 40 test images", path, subject=subject)
    (axes,) = figures[0].axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 90], [1, 80], [2, 52.5]])
    assert [text.get_text() for text in axes.texts] == ["90.0", "80.0", "52.5"]
    first, *_, last = axes.get_title().splitlines()
    assert first.startswith("…") and first.endswith("/long/run, step 3") and len(first) == 64
    assert last == "all 40 test images"


def test_pictures_of_maps_are_written_whole(tmp_path):
    rng = np.random.default_rng(0)
    pictures.save_filters(rng.normal(size=(5, 5, 3, 7)), "conv1", tmp_path / "filters.png")
    image = rng.integers(256, size=(12, 12, 3), dtype=np.uint8)
    maps = {"conv1": rng.normal(size=(8, 8, 20)), "conv2": np.zeros((4, 4, 2))}
    pictures.save_feature_maps(image, "an image", maps, tmp_path / "feature_maps.png")
    pictures.save_shifts([0.9, 0.8, 0.5], "of all", tmp_path / "shifts.png")
    for name in ("filters", "feature_maps", "shifts"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200
    assert not list(tmp_path.glob(".*"))


def test_pictures_are_written_whole(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 28, 28, 1), np.uint8)
    labels = rng.integers(0, 10, 50)
    probabilities = rng.dirichlet(np.ones(10), 50)
    confusion = rng.integers(0, 100, (10, 10))
    lines = [
        {"step": 1, "epoch": 0.5, "train_loss": 2.0, "train_accuracy": 0.5},
        {"step": 2, "epoch": 1.0, "test_loss": 1.5, "test_accuracy": 1.0},  # no error: no log of 0
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training_report.save_curves(tmp_path, tmp_path / "curves.png")
    pictures.save_confusion(confusion, DIGITS, tmp_path / "confusion.png")
    pictures.save_mistakes(images, labels, probabilities, DIGITS, tmp_path / "mistakes.png")
    pictures.save_mistakes(images, labels, np.eye(10)[labels], DIGITS, tmp_path / "none.png")
    for name in ("curves", "confusion", "mistakes", "none"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > (50 if name == "none" else 200)
    assert not list(tmp_path.glob(".*"))
