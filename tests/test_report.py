"""The console, and figures as files."""

import importlib.metadata
import io
import time

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


def test_package_version_of_a_checkout_that_is_not_installed():
    assert report.package_version("jaxcnn") == importlib.metadata.version("jaxcnn")
    assert report.package_version("no-such-package") == "not installed"


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.7, "1 min"), (90 * 60, "1 h 30 min"), (3540.1, "59 min")],
)
def test_duration_chooses_units(seconds, text):
    assert report.duration(seconds) == text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"force_jupyter": True}, True),
        ({"force_terminal": True, "_environ": {"TERM": "xterm"}}, True),
        ({"force_terminal": True, "_environ": {"TERM": "dumb"}}, False),
        ({"file": io.StringIO()}, False),
    ],
)
def test_is_interactive_tells_what_can_show_a_bar(options, expected, monkeypatch):
    monkeypatch.setattr(report, "console", Console(**options))
    assert report.is_interactive() == expected


def test_phase_prints_a_line_if_it_lasts(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(report, "console", Console(file=file))
    with report.phase("quick"):
        pass
    monkeypatch.setattr(report, "PHASE_SECONDS", 0.0)
    with report.phase("slow"):
        deadline = time.monotonic() + 10
        while not file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.001)
    assert file.getvalue() == "slow ...\n"
