"""Inside a trained network: maps, shifts and their pictures."""

import functools
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from jaxcnn import insight
from jaxcnn.models import MODELS
from jaxcnn.step import create_state
from jaxcnn.summary import IMAGE_SHAPES


def state_of(name):
    create = functools.partial(
        create_state, MODELS[name](num_classes=10), optax.sgd(1.0), IMAGE_SHAPES[name]
    )
    return jax.jit(create)(jax.random.key(0))


def test_feature_maps_are_those_of_each_layer_in_the_networks_order():
    state = state_of("lenet5-1998")
    images = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    maps = insight.feature_maps(state, images)
    assert [(name, x.shape) for name, x in maps.items()] == [
        ("C1", (2, 28, 28, 6)),
        ("S2", (2, 14, 14, 6)),
        ("C3", (2, 10, 10, 16)),
        ("S4", (2, 5, 5, 16)),
    ]  # C5's maps are of 1x1
    framed = jnp.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=-0.1)
    conv = nn.Conv(6, (5, 5), padding="VALID")
    expected = conv.apply({"params": state.params["C1"]}, framed)
    chex.assert_trees_all_close(maps["C1"], expected, atol=1e-5)


# Without running them: on a CPU some take seconds.
@pytest.mark.parametrize("name", MODELS)
def test_every_network_begins_with_a_convolution_whose_maps_are_shown(name):
    state = jax.eval_shape(functools.partial(state_of, name))
    shapes = {}

    def note(state, images):
        shapes.update({k: x.shape for k, x in insight.feature_maps(state, images).items()})

    image = jax.ShapeDtypeStruct((1, *IMAGE_SHAPES[name]), jnp.float32)
    jax.eval_shape(note, state, image)
    first, shape = next(iter(shapes.items()))
    *_, channels, features = state.params[first]["kernel"].shape
    assert channels == IMAGE_SHAPES[name][-1] and features == shape[-1]


def test_grey_images_are_shifted_over_zeros_and_colour_over_their_edge():
    grey = np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1)
    assert insight.shift(grey, 1, 0)[0, ..., 0].tolist() == [[0, 0], [1, 2]]
    assert insight.shift(grey, -1, 1)[0, ..., 0].tolist() == [[0, 3], [0, 0]]
    colour = np.repeat(grey, 3, axis=-1)
    assert insight.shift(colour, 1, 0)[0, ..., 1].tolist() == [[1, 2], [1, 2]]
    assert insight.shift(colour, 0, -1)[0, ..., 1].tolist() == [[2, 2], [4, 4]]
    chex.assert_trees_all_equal(insight.shift(grey, 0, 0), grey)


def test_accuracy_under_shifts_is_the_mean_of_the_four_ways():
    images = np.zeros((2, 9, 9, 1), np.uint8)
    images[0, 4, 4] = 1  # in the middle; the other image is empty

    def predict(images):
        """Class 1 if there is light in the lower right quarter, the middle included."""
        light = images[:, 4:, 4:].any(axis=(1, 2, 3))
        return np.stack([~light, light], axis=1)

    accuracies = insight.shift_accuracies(predict, images, np.array([1, 0]))
    assert accuracies == [1.0, 0.75, 0.75, 0.75, 0.75]  # up and left, the first is lost
    assert insight.shift_accuracies(predict, images, np.array([1, 1]), max_pixels=1) == [0.5, 0.25]


def test_images_to_shift_are_of_all_classes_though_they_come_class_by_class(monkeypatch, tmp_path):
    labels = np.repeat([0, 1, 2], 1000)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (3000, 30, 30, 1))
    seen = {}

    def shift_accuracies(predict, images, labels):
        seen.update(images=images, labels=labels)
        return [1.0]

    monkeypatch.setattr(insight, "feature_maps", lambda *_: {})
    monkeypatch.setattr(insight, "shift_accuracies", shift_accuracies)
    experiment = SimpleNamespace(to_input=lambda images: images, predict_one_view=print)
    state = SimpleNamespace(eval_params={})
    found = insight.draw(experiment, state, images, labels, 0, "a", tmp_path)
    assert found == {"shift_accuracies": [1.0], "num_shifted_examples": 1000}
    assert all(280 < (seen["labels"] == label).sum() < 390 for label in range(3))
    np.testing.assert_array_equal(seen["images"][:, 0, 0, 0], seen["labels"])


@pytest.fixture
def figures(monkeypatch):
    """A list of the figures that the test saves, in the place of files."""
    saved = []
    monkeypatch.setattr(insight, "save_figure", lambda figure, _: saved.append(figure))
    return saved


def test_filters_lie_in_rows_scaled_each_by_its_largest_weight(figures, tmp_path):
    kernel = np.array([[0.2, 0.1], [-4.0, 1.0], [0.0, 0.0]], np.float32).T.reshape(1, 2, 1, 3)
    insight.save_filters(kernel, "C1", tmp_path / "filters.png")
    (axes,) = figures[0].axes
    expected = [
        [0.9, 0.7, 1.0, 0.1, 0.6],
        [1.0, 1.0, 1.0, 1.0, 1.0],
        [0.5, 0.5, 1.0, 1.0, 1.0],
    ]
    shown = np.asarray(axes.images[0].get_array()).squeeze()
    chex.assert_trees_all_close(shown, np.array(expected), atol=1e-6)
    assert "3 kernels of C1, 1x2x1" in axes.get_title()


def test_feature_maps_lie_in_a_row_for_each_layer_on_one_scale(figures, tmp_path):
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    maps = {"conv1": np.array([[[1.0, -3.0]], [[0.5, 2.0]]]), "conv2": np.zeros((1, 1, 20))}
    insight.save_feature_maps(image, "a cat", maps, tmp_path / "feature_maps.png")
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
    assert second.images[0].get_array().count() == insight.MAPS_SHOWN


def test_shifts_are_percentages_over_pixels(figures, tmp_path):
    insight.save_shifts([0.9, 0.8, 0.525], "all 40 test images", tmp_path / "shifts.png")
    (axes,) = figures[0].axes
    (line,) = axes.lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 90], [1, 80], [2, 52.5]])
    assert [text.get_text() for text in axes.texts] == ["90.0", "80.0", "52.5"]
    assert "all 40 test images" in axes.get_title()


def test_pictures_are_written_whole(tmp_path):
    rng = np.random.default_rng(0)
    insight.save_filters(rng.normal(size=(5, 5, 3, 7)), "conv1", tmp_path / "filters.png")
    image = rng.integers(256, size=(12, 12, 3), dtype=np.uint8)
    maps = {"conv1": rng.normal(size=(8, 8, 20)), "conv2": np.zeros((4, 4, 2))}
    insight.save_feature_maps(image, "an image", maps, tmp_path / "feature_maps.png")
    insight.save_shifts([0.9, 0.8, 0.5], "of all", tmp_path / "shifts.png")
    for name in ("filters", "feature_maps", "shifts"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200
    assert not list(tmp_path.glob(".*"))
