"""`jaxcnn study` as a user starts it."""

import re
import sys

import pytest

from jaxcnn import PRESETS
from jaxcnn.commands import study
from jaxcnn.studies import engine


def compare(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["study.py", "compare", *arguments])
    study.main()


def test_study_compare_takes_flags_of_train_as_arms(monkeypatch):
    calls = []
    monkeypatch.setattr(engine, "compare", lambda *args, **kwargs: calls.append((args, kwargs)))
    arms = ["--arm", "", "--arm", "--model lenet5-relu --batch-size 128", "--arm=--epochs 2"]
    compare("lenet5-mnist5k", *arms, "--seeds", "3", monkeypatch=monkeypatch)
    [((configs,), options)] = calls
    assert list(configs) == ["lenet5-mnist5k", "--model lenet5-relu --batch-size 128", "--epochs 2"]
    assert configs["lenet5-mnist5k"].model == PRESETS["lenet5-mnist5k"].config.model
    assert configs[arms[3]].model == "lenet5-relu" and configs[arms[3]].batch_size == 128
    assert configs["--epochs 2"].epochs == 2 and options["seeds"] == range(3)


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ("--model 'lenet5", "No closing quotation"),
        ("--seeds 1 2", "has --seeds or --continue"),
        ("--seed 5", "the comparison chooses --seed"),
        ("--workdir here", "the comparison chooses --workdir"),
        ("--epochs x", "epochs"),
    ],
)
def test_study_compare_refuses_an_arm(arm, message, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        compare("lenet5-mnist5k", "--arm", arm, "--arm", "", monkeypatch=monkeypatch)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error
