"""What a person looks at, read back."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from jaxcnn import report

DIGITS = tuple("0123456789")


def steps_in(folder):
    return [line["step"] for line in report.read_metrics(folder)]


def test_a_resumed_log_has_each_step_once_and_no_torn_line(tmp_path):
    log = report.MetricsLog(tmp_path, step=0)
    for step in (10, 20, 30):
        log.write(step, {"train_loss": 1 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train_lo')  # killed in the middle of a line
    log = report.MetricsLog(tmp_path, step=20)
    log.write(30, {"train_loss": 0.5})
    log.close()
    assert steps_in(tmp_path) == [10, 20, 30]
    assert report.read_metrics(tmp_path)[-1]["train_loss"] == 0.5


def test_a_last_line_without_its_newline_is_ended_before_the_next(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}')
    log = report.MetricsLog(tmp_path, step=20)
    log.write(30, {"train_loss": 0.5})
    log.close()
    assert steps_in(tmp_path) == [10, 20, 30]


def test_tensorboard_events_hold_the_scalars(tmp_path):
    log = report.MetricsLog(tmp_path, step=0)
    log.write(7, {"test_accuracy": 0.75})
    log.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    content, found, at = path.read_bytes(), {}, 0
    while at < len(content):  # records: length, its checksum, the event, its checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        at += 16 + length
    assert found == {("test_accuracy", 7): 0.75}


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
    report.save_curves(tmp_path, tmp_path / "curves.png")
    report.save_confusion(confusion, DIGITS, tmp_path / "confusion.png")
    report.save_mistakes(images, labels, probabilities, DIGITS, tmp_path / "mistakes.png")
    report.save_mistakes(images, labels, np.eye(10)[labels], DIGITS, tmp_path / "none.png")
    for name in ("curves", "confusion", "mistakes", "none"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            picture.load()
            assert min(picture.size) > 200
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def figures(monkeypatch):
    """A list of the figures that the test saves, in the place of files."""
    saved = []
    monkeypatch.setattr(report, "save_figure", lambda figure, _: saved.append(figure))
    return saved


def test_mistakes_begin_with_the_surest_and_name_answer_and_truth(figures, tmp_path):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1).repeat(9, 1).repeat(9, 2)
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    labels = np.array([1, 1, 1, 0])  # the third is right
    report.save_mistakes(images, labels, probabilities, ("cat", "dog"), tmp_path, count=2)
    (figure,) = figures
    assert figure.get_suptitle().startswith("The 2 surest of 3 wrong answers")
    shown = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in shown]
    assert titles == ["cat (90.0%)\nis dog, #1", "dog (70.0%)\nis cat, #3"]
    assert [int(axes.images[0].get_array()[0, 0]) for axes in shown] == [1, 3]


def test_the_confusion_has_the_true_classes_in_rows(figures, tmp_path):
    report.save_confusion(np.array([[5, 2], [0, 7]]), ("cat", "dog"), tmp_path)
    (axes,) = figures[0].axes
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert texts == {"5": (0, 0), "2": (1, 0), "7": (1, 1)}  # columns across, rows down
    assert axes.get_title() == "2 errors in 14 images"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("answer", "true class")
    assert axes.images[0].get_array().filled(0).tolist() == [[0, 2], [0, 0]]


def test_curves_are_the_logs_losses_and_errors(figures, tmp_path):
    lines = [
        {"step": 1, "epoch": 0.5, "train_loss": 2.0, "train_accuracy": 0.5},
        {"step": 2, "epoch": 1.0, "test_loss": 1.5, "test_accuracy": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report.save_curves(tmp_path, tmp_path / "curves.png")
    curves = {
        (axes.get_ylabel(), line.get_label()): line.get_xydata().tolist()
        for axes in figures[0].axes
        for line in axes.lines
    }
    assert curves == {
        ("loss (nats)", "train"): [[0.5, 2.0]],
        ("loss (nats)", "test"): [[1.0, 1.5]],
        ("error (%)", "train"): [[0.5, 50.0]],
        ("error (%)", "test"): [[1.0, 25.0]],
    }


def test_the_evaluation_of_mnist_fits_into_eighty_columns(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(report, "console", console)
    confusion = np.full((10, 10), 1) + np.diag(np.full(10, 1134))
    ones = np.ones(10)
    report.print_evaluation({"accuracy": 0.99, "loss": 0.1}, confusion, ones, ones, DIGITS)
    text = console.file.getvalue()
    assert "…" not in text and text.count("1135") == 10 and text.count("100.0%") == 20


@pytest.mark.parametrize(
    ("names", "width", "head", "first", "second"),
    [
        ((":dog:", "[b]x\\"), 80, "class :dog: [b]x\\ recall precision", ":dog:", "[b]x\\"),
        (("class a", "class b"), 40, "class 0 1 recall precision", "0 class a", "1 class b"),
    ],
)
def test_columns_are_told_apart(names, width, head, first, second, monkeypatch):
    console = Console(file=io.StringIO(), width=width)
    monkeypatch.setattr(report, "console", console)
    recall, precision = np.array([1.0, 0.0]), np.array([0.75, np.nan])
    confusion = np.array([[3, 0], [1, 0]])
    report.print_evaluation({"accuracy": 0.75, "loss": 0.1}, confusion, precision, recall, names)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert head.split() in lines
    assert [*first.split(), "3", "·", "100.0%", "75.0%"] in lines
    assert [*second.split(), "1", "0", "0.0%", "-"] in lines


def test_a_matrix_that_does_not_fit_is_left_to_the_picture(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(report, "console", console)
    names, ones = [f"class {i}" for i in range(20)], np.ones(20)
    means = {"accuracy": 1.0, "loss": 0.1}
    report.print_evaluation(means, 1000 * np.eye(20, dtype=int), ones, ones, names)
    text = console.file.getvalue()
    assert "confusion.png" in text and "…" not in text
    assert ["class", "19", "100.0%", "100.0%"] in [line.split() for line in text.splitlines()]


def test_long_names_are_shortened():
    assert report.shortened("automobile", 10) == "automobile"
    assert report.shortened("automobiles", 10) == "automobil…"


def test_many_classes_are_two_lines(monkeypatch):
    console = Console(file=io.StringIO(), width=80)
    monkeypatch.setattr(report, "console", console)
    names = [f"class {i}" for i in range(report.LEGIBLE_CLASSES + 1)]
    means = {"accuracy": 0.6, "loss": 1.7, "top_5_accuracy": 0.82}
    confusion, ones = np.eye(len(names), dtype=int), np.ones(len(names))
    report.print_evaluation(means, confusion, ones, ones, names)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 and lines[1] == "among the five likeliest 82.00%"
