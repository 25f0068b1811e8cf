"""Errors, signals and closed pipes on the command line."""

import os
import signal
import subprocess
import sys

import pytest

from jaxcnn.cli import one_line_errors, run_command
from jaxcnn.errors import RunError, UserError

CTRL_C_IN_A_CALLBACK = """
import gc, os, signal
from jaxcnn.cli import one_line_errors

gc.callbacks.append(lambda *_: os.kill(os.getpid(), signal.SIGINT))  # its exceptions are ignored
with one_line_errors():
    gc.collect()
    print("went on")
"""


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("--epochs is 0"), 2, "error: --epochs is 0\n"),
        (UserError("`optimizer.mu` is 0; x"), 2, "error: --optimizer.mu is 0; x\n"),
        (UserError("`image_size` needs `F6`"), 2, "error: --image-size needs `F6`\n"),
        (RunError("the loss is not finite"), 1, "error: the loss is not finite\n"),
        (
            OSError(28, "No space left on device", "a"),
            1,
            "error: [Errno 28] No space left on device: 'a'\n",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nx"),
            1,
            "error: out of memory: Out of memory allocating 9 bytes; use a smaller batch or fewer "
            "images\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_one_line_errors_prints_an_expected_failure(error, status, said, capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    assert end.value.code == status and capsys.readouterr().err == said


def test_one_line_errors_ends_on_ctrl_c_anywhere():
    command = [sys.executable, "-c", CTRL_C_IN_A_CALLBACK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_one_line_errors_restores_the_handler():
    before = signal.getsignal(signal.SIGINT)
    with one_line_errors():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_one_line_errors_keeps_an_ignored_signal_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + CTRL_C_IN_A_CALLBACK
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


@pytest.mark.parametrize("num_lines", [1, 10**6])
def test_one_line_errors_says_nothing_of_a_closed_pipe(num_lines, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = (
        "import sys\n"
        "from jaxcnn.cli import one_line_errors\n"
        "with one_line_errors():\n"
        "    sys.stdin.readline()\n"
        f"    for _ in range({num_lines}): print('a line')\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    writer.stdout.close()
    writer.stdin.close()  # now, with nobody to read, it begins
    assert writer.wait(timeout=240) == 1 and writer.stderr.read() == ""
    writer.stderr.close()


@pytest.mark.parametrize(
    ("redirection", "output"), [(">&-", ""), (">&- 2>&-", ""), ("", "done: ? ?\n")]
)
def test_one_line_errors_prints_what_the_output_can_hold(redirection, output):
    code = (
        "from jaxcnn.cli import one_line_errors\n"
        "with one_line_errors(): print('done:', chr(0x2713), chr(0xDCFF))"
    )
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" {redirection}', sys.executable, code],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, output, "")


def test_one_line_errors_does_not_hide_a_bug():
    with pytest.raises(KeyError), one_line_errors():
        raise KeyError("x")


def test_run_command_names_only_flags_that_the_command_has(monkeypatch, capsys):
    def command(views: int = 1) -> None:
        """Refuse everything."""
        raise UserError(f"`views` is {views}; the run has no crop in `transforms`")

    monkeypatch.setattr("sys.argv", ["command", "--views", "10"])
    with pytest.raises(SystemExit):
        run_command(command)
    assert capsys.readouterr().err == "error: --views is 10; the run has no crop in transforms\n"


def test_run_command_fills_the_lines_of_a_description(monkeypatch, capsys):
    def command(views: int = 1) -> None:
        """Do nothing.

        Args:
            views: views of
                an image.
        """

    monkeypatch.setattr("sys.argv", ["command", "--help"])
    with pytest.raises(SystemExit):
        run_command(command)
    assert "views of an image. (default: 1)" in capsys.readouterr().out
