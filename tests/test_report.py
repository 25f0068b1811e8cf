"""The console, and figures as files."""

import io

import pytest
from PIL import Image
from rich.console import Console

from jaxcnn import report


def test_say_prints_brackets_and_long_lines_as_they_are(monkeypatch):
    console = Console(file=io.StringIO(), width=20)
    monkeypatch.setattr(report, "console", console)
    line = "run [1] of [bold] " + "x" * 40
    report.say(line)
    assert console.file.getvalue() == line + "\n"


def test_save_figure_writes_a_png_whatever_the_name(tmp_path):
    figure = report.make_figure(2, 1)
    figure.subplots().plot([1, 2])
    report.save_figure(figure, tmp_path / "curve.txt")
    with Image.open(tmp_path / "curve.txt") as picture:
        assert picture.format == "PNG" and picture.size == (300, 150)


def test_save_figure_keeps_the_old_file_when_drawing_fails(tmp_path, monkeypatch):
    path = tmp_path / "curve.png"
    path.write_text("an older figure")
    figure = report.make_figure(2, 1)

    def fail(*_, **__):
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(RuntimeError, match="cannot draw"):
        report.save_figure(figure, path)
    assert path.read_text() == "an older figure"
