"""The nearest training images in pixels and in the last hidden layer, compared with NumPy."""

import numpy as np
import pytest
from helpers import write_run

from jaxcnn import PRESETS
from jaxcnn.evaluation import predict
from jaxcnn.studies import neighbour_measures as measures

pytestmark = pytest.mark.usefixtures("rows_as_mnist5k")


def brute_force(queries, images):
    distances = np.square(queries[:, None] - images).sum(-1)
    return np.argsort(distances, axis=1, kind="stable")[:, : measures.NEIGHBOURS]


def flat(images):
    return images.reshape(len(images), -1).astype(float)


@pytest.fixture
def run(tmp_path):
    """The folder of a run without checkpoints."""
    write_run(tmp_path / "run", PRESETS["lenet5-mnist5k"].config, 0.9)
    return tmp_path / "run"


def test_neighbours_in_pixels_by_hand(run, rows):
    train, test = flat(rows.train_images), flat(rows.test_images)
    nearest = brute_force(test, train)
    labels = rows.train_labels[nearest]
    right = labels == rows.test_labels[:, None]
    counts = [np.bincount(row, minlength=10) for row in labels]
    votes = [
        next(label for label in row if count[label] == count.max())
        if count[row[0]] == count.max()
        else count.argmax()
        for row, count in zip(labels, counts, strict=True)
    ]
    assert measures.neighbours(run, space="pixels") == pytest.approx(
        {
            "share": 100 * right.mean(),
            "vote_error": 100 * (np.array(votes) != rows.test_labels).mean(),
            "nearest_error": 100 * (1 - right[:, 0].mean()),
            "pixel_distance": 100 * measures.relative_distance(test, train, nearest),
        },
        abs=1e-3,
    )


@pytest.mark.slow
def test_neighbours_in_the_trained_layer_are_more_often_of_the_class(run_of_rows, rows):
    found = {
        space: measures.neighbours(run_of_rows, space=space)
        for space in ("pixels", "initial features", "features")
    }
    shares = [each["share"] for each in found.values()]
    assert shares[2] > shares[0] + 5 > shares[1] + 10
    distances = [each["pixel_distance"] for each in found.values()]
    assert distances[0] < min(distances[1:]) and distances[2] <= 100
    layer = predict.load(run_of_rows).trained.params["hidden1"]
    mean, std = (
        getattr(PRESETS["lenet5-mnist5k"].config, f"pixel_{name}") for name in ("mean", "std")
    )
    train, test = (
        np.tanh(((flat(images) / 255 - mean) / std @ layer["kernel"] + layer["bias"]) * 2 / 3)
        for images in (rows.train_images, rows.test_images)
    )
    nearest = measures.nearest_images(run_of_rows, "features", rows.train_images, rows.test_images)
    assert (nearest == brute_force(test, train)).mean() > 0.99


def test_relative_distance_of_all_pairs_is_one():
    rng = np.random.default_rng(0)
    queries, images = rng.normal(1, 2, size=(5, 3)), rng.normal(size=(7, 3))
    everything = np.tile(np.arange(7), (5, 1))
    assert measures.relative_distance(queries, images, everything) == pytest.approx(1)
    nearest = brute_force(queries, images)[:, :2]
    pairs = np.square(queries[:, None] - images).sum(-1)
    chosen = np.take_along_axis(pairs, nearest, 1)
    expected = np.sqrt(chosen.mean() / pairs.mean())
    assert measures.relative_distance(queries, images, nearest) == pytest.approx(expected)
