"""The evaluation of a run: on its own data, elsewhere, and on classes under other names."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import CLASSES, Tiny, save_image

from jaxcnn import TrainConfig, UserError, evaluate_run, train_and_evaluate
from jaxcnn.evaluation import evaluate, pictures, probes


def test_measure_shifts_draws_images_of_all_classes(monkeypatch):
    labels = np.repeat([0, 1, 2], 1000)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (3000, 30, 30, 1))
    seen = {}

    def shift_accuracies(predict, images, labels):
        seen.update(images=images, labels=labels)
        return [1.0]

    monkeypatch.setattr(probes, "shift_accuracies", shift_accuracies)
    classifier = SimpleNamespace(preprocess=lambda images: images, log_probs_of_one_view=print)
    found = evaluate.measure_shifts(classifier, images, labels)
    assert found == {"shift_accuracies": [1.0], "num_shifted_examples": 1000}
    assert all(280 < (seen["labels"] == label).sum() < 390 for label in range(3))
    np.testing.assert_array_equal(seen["images"][:, 0, 0, 0], seen["labels"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 images of three classes to train on, and 9 to test on."""
    folder = tmp_path_factory.mktemp("images")
    for i in range(21):
        split = "train" if i < 12 else "val"
        save_image(folder / split / CLASSES[i % 3] / f"{i}.png", 40, 40, seed=i)
    return folder


@pytest.fixture(scope="module")
def config(folder, tmp_path_factory):
    """The config of a run on the folder, trained."""
    config = TrainConfig(
        dataset=f"folder:{folder}",
        stream_size=8,
        batch_size=4,
        epochs=20,
        workdir=str(tmp_path_factory.mktemp("runs") / "run"),
    )
    train_and_evaluate(config, model=Tiny())
    return config


@pytest.fixture
def run(config, tmp_path):
    """A copy of the run."""
    return shutil.copytree(config.workdir, tmp_path / "run")


def test_evaluate_run_matches_classes_by_name(config, folder, run, tmp_path):
    whole = evaluate_run(run, model=Tiny())
    confusion = np.array(whole["confusion"])
    assert confusion.sum() == 9 and whole["class_names"] == list(CLASSES)
    # Without the first class, the labels of the others move down by one.
    shutil.copytree(folder / "val", tmp_path / "new" / "test", ignore=lambda *_: ["cat"])
    options = {"dataset": f"folder:{tmp_path / 'new'}", "model": Tiny()}
    part = evaluate_run(run, split="test", **options)
    np.testing.assert_array_equal(part["confusion"], confusion * [[0], [1], [1]])
    (tmp_path / "new" / "test" / "eel").rename(tmp_path / "new" / "test" / "Aal")
    with pytest.raises(UserError, match="classes that the network was not trained on: Aal; exp"):
        evaluate_run(run, **options)
    with pytest.raises(UserError, match="has no split val"):
        evaluate_run(run, split="val", **options)


@pytest.mark.slow
def test_evaluate_run_reads_the_classes_of_earlier_versions_from_the_data(run, capsys):
    expected = evaluate_run(run, model=Tiny())
    (run / "dataset.json").unlink()
    assert evaluate_run(run, model=Tiny()) == expected
    other = evaluate_run(run, model=Tiny(), dataset=expected["dataset"])
    assert other["confusion"] == expected["confusion"]
    assert "does not record its classes; taking them to be cat, dog, eel" in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_run_writes_elsewhere_and_survives_a_picture(run, tmp_path, monkeypatch, caplog):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    def fail(*_, **__):
        raise ValueError("unknown symbol")

    monkeypatch.setattr(pictures, "save_confusion", fail)
    output = tmp_path / "new" / "output"
    options = {"saliency": [0], "embedding": True}
    evaluation = evaluate_run(run, model=Tiny(), output=output, **options)
    assert json.loads((output / "evaluation.json").read_text()) == evaluation
    assert (output / "mistakes.png").exists() and not (output / "confusion.png").exists()
    assert "confusion.png is not drawn (ValueError: unknown symbol)" in caplog.text
    assert (output / "calibration.png").exists() and (output / "rejection.png").exists()
    assert "embedding.png is not drawn (ValueError: the network has one layer" in caplog.text
    assert "saliency.png is not drawn (ValueError: the network has no convolution" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    with pytest.raises(UserError, match="cannot create .*; set `output` to another folder"):
        evaluate_run(run, model=Tiny(), output=output / "evaluation.json" / "x")
