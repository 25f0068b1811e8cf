"""The picture of a run's curves."""

import json

from jaxcnn.training import report as training_report


def test_save_curves_draws_the_losses_and_errors_of_the_log(figures, tmp_path):
    lines = [
        {"step": 1, "epoch": 0.5, "train_loss": 2.0, "train_accuracy": 0.5},
        {"step": 2, "epoch": 1.0, "test_loss": 1.5, "test_accuracy": 0.75},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    training_report.save_curves(tmp_path, tmp_path / "curves.png")
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
