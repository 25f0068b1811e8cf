"""The command line: one program for all commands."""

import importlib
import subprocess
import sys

import pytest
from helpers import SCRIPTS

from jaxcnn import __main__ as command_line


def run(*arguments, python=()):
    command = [sys.executable, *python, "-m", "jaxcnn", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_jaxcnn_has_a_command_for_each_script():
    assert {f"{name}.py" for name in command_line.COMMANDS} == {
        path.name for path in SCRIPTS.glob("*.py")
    }
    for name in command_line.COMMANDS:
        assert callable(importlib.import_module(f"jaxcnn.commands.{name}").main)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_jaxcnn_lists_its_commands(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", *arguments])
    command_line.main()
    lines = capsys.readouterr().out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == list(command_line.COMMANDS)


def test_jaxcnn_offers_the_nearest_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", "trian"])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 2
    assert "no command is called 'trian'; did you mean train?" in capsys.readouterr().err


def test_jaxcnn_passes_arguments_and_its_name_on():
    done = run("train", "lenet5-mnist", "--help", python=["-X", "importtime"])
    assert done.returncode == 0 and done.stdout.startswith("usage: jaxcnn train [PRESET]")
    assert "Flags, with the values of lenet5-mnist:" in done.stdout
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in modules and not modules & {"jax", "flax", "orbax"}


@pytest.mark.parametrize("command", ["evaluate nowhere", "predict nowhere a.png"])
def test_jaxcnn_refuses_a_folder_without_a_run_before_it_imports_jax(command):
    done = run(*command.split(), python=["-X", "importtime"])
    assert done.returncode == 2 and "error: nowhere holds no run" in done.stderr
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in modules and not modules & {"jax", "flax", "orbax"}


def test_jaxcnn_help_fits_60_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, run("--help").stdout.splitlines())) <= 60


def test_jaxcnn_prints_its_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaxcnn", "--version"])
    command_line.main()
    assert capsys.readouterr().out.startswith("jaxcnn 0.")
