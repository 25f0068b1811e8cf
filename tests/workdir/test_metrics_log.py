"""The log of a run, after a kill and in TensorBoard's format."""

import os
import pathlib
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from jaxcnn.errors import UserError
from jaxcnn.workdir import metrics_log


def steps_in(folder):
    return [line["step"] for line in metrics_log.read_metrics(folder)]


def test_metrics_log_drops_later_and_truncated_lines(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, step=0)
    for step in (10, 20, 30):
        log.write(step, {"train_loss": 1 / step})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "train_lo')  # killed in the middle of a line
    log = metrics_log.MetricsLog(tmp_path, step=20)
    log.write(30, {"train_loss": 0.5})
    log.close()
    assert steps_in(tmp_path) == [10, 20, 30]
    assert metrics_log.read_metrics(tmp_path)[-1]["train_loss"] == 0.5


def test_metrics_log_notices_lost_and_changed_lines(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    log = metrics_log.MetricsLog(tmp_path, step=0)
    log.write(10, {"train_loss": 0.5})
    log.write(20, {"train_loss": 0.25})
    digest = log.sync()
    log.write(30, {"train_loss": 0.125})
    log.close()
    content = path.read_bytes()
    metrics_log.MetricsLog(tmp_path, step=20, expected=digest)
    assert (
        not caplog.text
        and path.read_bytes()
        == content.splitlines(keepends=True)[0] + (content.splitlines(keepends=True)[1])
    )
    for changed, count in (
        (content.replace(b"0.25", b"0.26"), 2),
        (content.replace(b'"step": 10', b'"step": \xff'), 1),
        (content.replace(b'"train_loss": 0.5', b'"train_loss": "0"'), 1),
        (content[content.index(b"\n") + 1 :], 1),
        (b"", 0),
    ):
        caplog.clear()
        path.write_bytes(changed)
        metrics_log.MetricsLog(tmp_path, step=20, expected=digest)
        assert f"has {count} lines up to step 20; expected 2" in caplog.text
        assert len(metrics_log.read_metrics(tmp_path)) == count


def test_read_metrics_names_the_line(tmp_path):
    assert metrics_log.read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "los": 1}\n')
    with pytest.raises(UserError, match="metrics.jsonl, line 2: los is not a field"):
        metrics_log.read_metrics(tmp_path)


def test_metrics_log_ends_a_line_without_a_newline(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10}\n{"step": 20}')
    log = metrics_log.MetricsLog(tmp_path, step=20)
    log.write(30, {"train_loss": 0.5})
    log.close()
    assert steps_in(tmp_path) == [10, 20, 30]


@pytest.mark.parametrize("make", [pathlib.Path.mkdir, os.mkfifo])
def test_metrics_log_refuses_a_special_file(make, tmp_path):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="metrics.jsonl cannot be read: it is a .*; move it away"):
        metrics_log.MetricsLog(tmp_path, step=0)
    with pytest.raises(UserError, match="metrics.jsonl cannot be read"):
        metrics_log.read_metrics(tmp_path)


def test_metrics_log_writes_events_for_tensorboard(tmp_path):
    log = metrics_log.MetricsLog(tmp_path, step=0)
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


def test_metrics_log_does_not_import_torch(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [*sys.modules]:
        if name.partition(".")[0] in ("torch", "tensorboardX"):
            monkeypatch.delitem(sys.modules, name)
    log = metrics_log.MetricsLog(tmp_path, step=0)
    log.write(7, {"test_accuracy": 0.75})
    log.close()
    assert "torch" not in sys.modules and any(tmp_path.glob("events.out.*"))
