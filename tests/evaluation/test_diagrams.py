"""The diagrams that an evaluation draws."""

import numpy as np
from PIL import Image

from jaxcnn.evaluation import diagrams, metrics
from jaxcnn.evaluation.diagrams import Saliency


def test_save_calibration_has_a_bar_for_each_bin(figures, tmp_path):
    confidences = np.array([0.2, 0.9, 0.8, 0.9])
    calibration = metrics.calibration(confidences, np.array([0, 1, 1, 0], bool), num_bins=2)
    diagrams.save_calibration(calibration, tmp_path / "calibration.png", subject="my run")
    upper, lower = figures[0].axes
    assert [bar.get_height() for bar in upper.patches] == [0, 2 / 3]
    assert [bar.get_height() for bar in lower.patches] == [1, 3]
    assert [bar.get_x() for bar in upper.patches] == [0, 0.5]
    title = "my run\nExpected calibration error 20.00%: 4 answers in 2 bins"
    assert upper.get_title() == title


def test_save_rejection_marks_half_a_percent(figures, tmp_path):
    errors = np.array([0.25, 0.1, 0.004, 0.0])
    diagrams.save_rejection(errors, tmp_path / "rejection.png")
    diagrams.save_rejection(np.array([0.5, 1.0]), tmp_path / "rejection.png")
    (axes,), (other,) = (figure.axes for figure in figures)
    curve, _, mark = axes.lines
    np.testing.assert_allclose(curve.get_xydata(), [[0, 25], [25, 10], [50, 0.4], [75, 0]])
    np.testing.assert_allclose(mark.get_xydata(), [[50, 0.5]])
    assert axes.get_title().startswith("0.5% error by rejecting 50.0%;")
    assert other.get_title().startswith("0.5% error is not reached;") and len(other.lines) == 2


def test_save_embedding_names_the_classes_at_their_medians(figures, tmp_path):
    coordinates = np.array([[0, 0], [2, 2], [1, 1], [8, 9.0]])
    labels = np.array([0, 0, 0, 2])
    path, fractions = tmp_path / "embedding.png", np.array([0.5, 0.25])
    diagrams.save_embedding(coordinates, fractions, labels, ("cat", "dog", "$"), "F6", path)
    diagrams.save_embedding(coordinates, fractions, labels, [str(i) for i in range(30)], "F6", path)
    (axes,), (many,) = (figure.axes for figure in figures)
    assert {text.get_text(): text.get_position() for text in axes.texts} == {
        **{"cat": (1, 1), r"\$": (8, 9)}
    }
    assert axes.get_xlabel() == "component 1 (50.0% of the variance)"
    assert not many.texts


def test_diagrams_are_written_whole(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        Saliency(f"#{i}", rng.random((8, 8, channels)), np.zeros((8, 8)), rng.random((4, 4)))
        for i, channels in enumerate((1, 3))
    ]
    diagrams.save_saliency(rows, "C3", 2, tmp_path / "saliency.png", subject="my run")
    correct, confidences = rng.random(50) < 0.5, rng.random(50)
    diagrams.save_calibration(
        metrics.calibration(confidences, correct), tmp_path / "calibration.png"
    )
    errors = metrics.rejection_errors(confidences, correct)
    diagrams.save_rejection(errors, tmp_path / "rejection.png")
    for name in ("saliency", "calibration", "rejection"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200


def test_save_saliency_has_a_row_for_each_image(figures, tmp_path):
    cam = np.linspace(0, 3, 64).reshape(8, 8)
    row = Saliency("#7, is cat\nanswer dog (80.0%)", np.full((8, 8, 1), 0.5), cam, np.eye(4))
    diagrams.save_saliency([row, row], "C3", 2, tmp_path / "saliency.png", subject="my run")
    axes = figures[0].axes
    assert len(axes) == 7  # two rows of three, and the colorbar
    plain, middle, right = axes[3:6]
    assert plain.get_ylabel() == "#7, is cat\nanswer dog (80.0%)"
    np.testing.assert_array_equal(np.asarray(middle.images[1].get_array()), cam)
    assert middle.images[1].get_clim() == (0, 3)
    np.testing.assert_array_equal(np.asarray(right.images[0].get_array()), np.eye(4))
    assert list(right.images[0].get_extent()) == [-0.5, 7.5, 7.5, -0.5]
    assert axes[1].get_title() == "Grad-CAM of C3" and "2x2" in axes[2].get_title()
