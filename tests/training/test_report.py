"""The picture of a run's curves."""

import io
import json

import pytest
from rich.console import Console

from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.training import report as training_report


def test_save_curves_draws_the_losses_and_errors_of_the_log(figures, tmp_path):
    lines = [
        {"step": 1, "epoch": 0.5, "train_loss": 2.0, "train_accuracy": 0.5},
        {"step": 2, "epoch": 1.0, "test_loss": 1.5, "test_accuracy": 0.75},
    ]
    lines[1] |= {"train_eval_loss": 1.25, "train_eval_accuracy": 0.875}
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training_report.save_curves(tmp_path, tmp_path / "curves.png")
    curves = {
        (axes.get_ylabel(), line.get_label()): line.get_xydata().tolist()
        for axes in figures[0].axes
        for line in axes.lines
    }
    assert curves == {
        ("loss (nats)", "train"): [[0.5, 2.0]],
        ("loss (nats)", "train, evaluated"): [[1.0, 1.25]],
        ("loss (nats)", "test"): [[1.0, 1.5]],
        ("error (%)", "train"): [[0.5, 50.0]],
        ("error (%)", "train, evaluated"): [[1.0, 12.5]],
        ("error (%)", "test"): [[1.0, 25.0]],
    }


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: a list of one time, in seconds."""
    now = [100.0]
    monkeypatch.setattr(training_report.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize("terminal", [{}, {"TERM": "dumb"}, {"TERM": "xterm"}])
def test_training_progress_prints_a_line_each_minute(terminal, clock, monkeypatch):
    is_bar = terminal.get("TERM") == "xterm"
    file = io.StringIO()
    console = Console(file=file, width=60, force_terminal=bool(terminal), _environ=terminal)
    for module in (report, training_report):
        monkeypatch.setattr(module, "console", console)
    config = TrainConfig(batch_size=50, epochs=10)
    with training_report.TrainingProgress(config, 100, step=200) as progress:
        for seconds, step in ((4, 220), (10, 250), (30, 300), (70, 400), (75, 410)):
            clock[0] = 100.0 + seconds
            progress.update(step, 0.25)
    lines = file.getvalue().splitlines()
    if is_bar:
        assert "\x1b" in file.getvalue() and " 410/1000" in file.getvalue()
        return
    assert lines == [
        "step 250 of 1,000, epoch 2.50: loss 0.2500, 250 images/s, 2 min left",
        "step 400 of 1,000, epoch 4.00: loss 0.2500, 125 images/s, 4 min left",
    ]
    assert "\x1b" not in file.getvalue() and "\r" not in file.getvalue()
