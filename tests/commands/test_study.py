"""`jaxcnn study` as a user starts it."""

import re
import sys

import pytest

from jaxcnn import PRESETS
from jaxcnn.commands import study
from jaxcnn.studies import engine
from jaxcnn.studies.catalogue import STUDIES

DAMAGED = [
    *(b"", b"[]", b"\xff\xfe", b"{}", b'{"arms": 3}', b'{"arms": {"a": {}}}'),
    b'{"arms": {"a": {"verdict": 1, "mean": "x", "published": 1}}, "claim": "", "seeds": 3}',
]


def start(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["study.py", *arguments])
    study.main()


def compare(*arguments, monkeypatch):
    start("compare", *arguments, monkeypatch=monkeypatch)


def test_study_lists_all_and_prints_a_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start(monkeypatch=monkeypatch)
    output = capsys.readouterr().out
    shift = STUDIES["shift"]
    assert (
        f"shift: {len(shift.arms)} arms, 5 seeds" in output
        and "cost: 15 claims, computed" in output
    )
    start("cost", "--plan", monkeypatch=monkeypatch)
    assert capsys.readouterr().out == ""
    plan = ("shift", "--plan", "--seeds", "2", "--arms", "average")
    start(*plan, monkeypatch=monkeypatch)
    assert capsys.readouterr().out.splitlines() == [
        f"python scripts/study.py shift --arms average --train 0 --rate {rate:g}"
        for rate in shift.rates
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", DAMAGED)
def test_study_names_a_damaged_result(content, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    folder = tmp_path / "runs" / "studies" / "shift"
    folder.mkdir(parents=True)
    for name in ("study.json", "report.md", "figure.png"):
        (folder / name).write_bytes(content if name == "study.json" else b"")
    start(monkeypatch=monkeypatch)
    place = "runs/studies/shift/study.json"
    assert f"here: {place} is damaged; run the study again" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        start("shift", "--publish", "pages", monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert re.match(f"error: ({place} is damaged: it is|pages/shift.json is no result)", error)


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
