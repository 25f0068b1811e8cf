"""Answers of a trained network for paths and arrays."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

import jaxcnn
from jaxcnn import Classifier, UserError
from jaxcnn.data import datasets, geometry
from jaxcnn.data.transforms import RandomCrop, Resize
from jaxcnn.evaluation import predict


@pytest.fixture(scope="module")
def classifier():
    return jaxcnn.load(pretrained="lenet5-mnist")


@pytest.fixture(scope="module")
def digits():
    dataset = datasets.load("mnist5k")
    return dataset.test_images[:12], dataset.test_labels[:12]


def test_predict_answers_for_arrays_in_every_form(classifier, digits):
    images, labels = digits
    log_probs, names = classifier.predict(images)
    assert sum(name == str(label) for name, label in zip(names, labels, strict=True)) >= 11
    assert log_probs.shape == (12, 10) and classifier.class_names == tuple("0123456789")
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, rtol=1e-5)
    forms = [images[..., 0], list(images), images / 255, (images / 255).astype(np.float32)]
    for form in forms:
        np.testing.assert_allclose(classifier.predict(form).log_probs, log_probs, atol=1e-3)
    for one in (images[0], images[0, ..., 0], images[0] / 255):
        np.testing.assert_allclose(classifier.predict(one).log_probs, log_probs[:1], atol=1e-3)


def test_predict_answers_for_files_of_any_form(classifier, digits, tmp_path):
    images, labels = digits
    paths = []
    for i, image in enumerate(images[:6]):
        large = Image.fromarray(255 - image[..., 0]).resize((300, 200))
        large = large.convert(("L", "RGB", "RGBA", "P", "1", "L")[i])
        paths.append(tmp_path / f"{i}.{'png' if i else 'jpg'}")
        large.save(paths[-1])
    assert classifier.predict(paths).names == [str(label) for label in labels[:6]]
    for ink in (0, 255):  # on nothing
        transparent = Image.new("LA", (28, 28), (ink, 0))
        transparent.putalpha(Image.fromarray(images[7, ..., 0]))
        transparent.save(tmp_path / "transparent.png")
        assert classifier.predict(tmp_path / "transparent.png").names == [str(labels[7])]


def test_predict_refuses_a_page_without_a_digit(classifier, tmp_path):
    Image.new("L", (300, 200), 255).save(tmp_path / "white.png")
    for blank in (tmp_path / "white.png", np.zeros((50, 50), np.uint8)):
        with pytest.raises(UserError, match="no ink was found; expected a digit on a page"):
            classifier.predict(blank)
    assert classifier.predict(tmp_path / "white.png", prepare="none").log_probs.shape == (1, 10)


def test_predict_compiles_once_for_each_batch_size(classifier, digits, caplog):
    images, _ = digits
    expected = classifier.predict(images[:8]).log_probs
    with jax.log_compiles():
        padded = classifier.predict(images[:5]).log_probs
        assert "log_probs" not in caplog.text
        classifier.predict(np.repeat(images, 6, axis=0)[:65])
        assert "log_probs" in caplog.text
    np.testing.assert_allclose(padded, expected[:5], rtol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((28, 28), np.int64), "array of int64; expected uint8 in 0..255 or floating"),
        (np.full((28, 28), 255.0), r"values from 255 to 255; expected .* in \[0, 1\]; divide"),
        (np.full((28, 28), np.nan), "values from nan to nan"),
        (np.zeros((2, 28, 28, 5), np.uint8), r"shape \(28, 28, 5\); expected"),
        (np.zeros(7, np.uint8), r"shape \(7, 1\); expected|shape \(7,\); expected"),
        (np.zeros((0, 28, 28), np.uint8), "there are no images; expected at least one"),
        ("no-such-file.png", "no-such-file.png is a bad image: No such file"),
        (".", "is a bad image: "),
    ],
)
def test_predict_refuses_what_is_no_image(image, message, classifier):
    with pytest.raises(UserError, match=message):
        classifier.predict(image)


def test_features_are_the_outputs_of_a_layer(classifier, digits):
    features = classifier.features(digits[0][:3], layer="F6")
    assert features.shape == (3, 84)
    hidden = 1 / (1 + np.exp(-features))
    output = classifier.trained.params["output"]
    logits = hidden @ output["kernel"] + output["bias"]
    assert (logits.argmax(-1) == digits[1][:3]).all()
    with pytest.raises(UserError, match="no layer is called 'F7'.*F6"):
        classifier.features(digits[0], layer="F7")


def test_stream_reports_bad_files_in_their_place(classifier, digits, tmp_path):
    images, labels = digits
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    paths[1].write_text("no image")
    paths[3].unlink()
    answers = list(classifier.stream(map(str, paths)))
    assert [answer.path for answer in answers] == list(map(str, paths))
    assert [answer.error is None for answer in answers] == [True, False, True, False, True]
    for i in (0, 2, 4):
        assert answers[i].log_probs.argmax() == labels[i]


def test_stream_reads_only_a_few_files_ahead(classifier, digits, tmp_path):
    Image.fromarray(digits[0][0, ..., 0]).save(tmp_path / "a.png")
    asked = []

    def paths():
        for i in range(100_000):
            asked.append(i)
            yield str(tmp_path / "a.png")

    stream = classifier.stream(paths())
    next(stream)
    assert len(asked) <= 4 * predict.STREAM_BATCH
    stream.close()


def test_predict_averages_the_probabilities_of_ten_views(classifier, digits):
    trained, (images, _) = classifier.trained, digits
    cropping = dataclasses.replace(trained.config, transforms=(Resize(30), RandomCrop(28)))
    cropping = Classifier(trained._replace(config=cropping), views=10)
    views = geometry.views(geometry.resize(images, size=30), size=28, flips=True)
    of_views = [np.exp(classifier.log_probs(np.asarray(view))) for view in views]
    expected = np.log([probabilities.mean(0) for probabilities in of_views])
    np.testing.assert_allclose(cropping.log_probs(images), expected, rtol=1e-3, atol=1e-3)
    central = np.log([probabilities[4] for probabilities in of_views])
    found = cropping.log_probs_of_one_view(images)
    np.testing.assert_allclose(found, central, rtol=1e-3, atol=1e-3)


def test_load_needs_a_run_or_a_name():
    with pytest.raises(UserError, match="either a run or the name of pretrained weights"):
        jaxcnn.load()
    with pytest.raises(UserError, match="no set of pretrained weights is called 'lenet5-mnits'"):
        jaxcnn.load(pretrained="lenet5-mnits")
    with pytest.raises(UserError, match="^`views` is 10: 10 views are parts of an image"):
        jaxcnn.load(pretrained="lenet5-mnist", views=10)
