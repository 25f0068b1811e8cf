"""The command that writes the page: its arguments, its file, and when a browser opens."""

import sys
import webbrowser

import pytest

from jaxcnn.commands import demo


@pytest.fixture
def run(monkeypatch):
    """A function that runs the command; it returns the addresses that were opened."""
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)

    def start(*arguments, display=""):
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        monkeypatch.setattr(sys, "argv", ["demo.py", *map(str, arguments)])
        demo.main()
        return opened

    return start


def test_demo_writes_one_file_and_opens_it_on_a_display(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("jaxcnn.demo.page.build_page", lambda trained: f"<{trained.name}>")
    out = tmp_path / "a b.html"
    assert run("--out", out) == []
    assert out.read_text() == "<lenet5-mnist>"
    assert "Written: " in capsys.readouterr().out
    assert run("--out", out, "--no-open", display=":0") == []
    assert run("--out", out, display=":0") == [out.as_uri()]
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/a", "--pretrained", "lenet5-mnist"], "runs/a' and --pretrained; expected one"),
        (["--step", "best"], "--step chooses a checkpoint of a run; name the run"),
        (["--out", "nowhere/x.html"], "create the folder 'nowhere' first"),
        (
            ["--pretrained", "lenet6", "--out", "x.html"],
            "there are cuda-convnet-18pct-cifar10, lenet5-1998-mnist",
        ),
        (
            ["--pretrained", "cuda-convnet-18pct-cifar10", "--out", "x.html"],
            "is CudaConvnet; expected one of LeNet's family",
        ),
    ],
)
def test_demo_refuses_in_one_line(arguments, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
