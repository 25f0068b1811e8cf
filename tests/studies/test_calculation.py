"""Studies that are computed: their verdicts, and the commands that otherwise train."""

import dataclasses
import json

import pytest

from jaxcnn.errors import UserError
from jaxcnn.studies import engine, run_study
from jaxcnn.studies.calculation import Calculation, Claim, Table
from jaxcnn.studies.publish import publish


def claim(name, first, second, **fields):
    return Claim(name, f"{name} is large.", lambda: {"apples": first, "pears": second}, **fields)


STUDY = Calculation(
    name="fruit",
    claim="There are more apples than pears.",
    source="this test",
    arms=(claim("far", 1200, 1000), claim("near", 1050, 1000)),
    tables=lambda: (Table("Baskets", ("basket", "fruit", "share"), (("first", 1200, 0.5),), "!"),),
    save_figure=lambda record, path: path.write_text(str(record["seeds"])),
    caption="Fruit",
)


@pytest.mark.parametrize(
    ("first", "equal", "verdict"),
    [
        (110, False, "holds"),
        (109, False, "contradicted"),
        (50, False, "contradicted"),
        (109, True, "holds"),
        (110, True, "contradicted"),
    ],
)
def test_claim_is_decided_by_the_ratio(first, equal, verdict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = dataclasses.replace(STUDY, arms=(claim("one", first, 100, equal=equal),))
    arm = run_study(study)["arms"]["one"]
    assert arm["mean"] == first / 100 and arm["verdict"] == verdict
    assert arm["conclusion"] == f"{first} apples, 100 pears: {verdict}"


def test_run_study_computes_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "find_or_train", None)
    record = run_study(STUDY, seeds=[0, 1], jobs=1)
    folder = tmp_path / "runs/studies/fruit"
    assert json.loads((folder / "study.json").read_text())["arms"] == record["arms"]
    assert (folder / "figure.png").read_text() == (folder / "figure.svg").read_text() == "[]"
    page = (folder / "report.md").read_text()
    assert "| near is large. | 1,050 apples, 1,000 pears | 1.05 | a ratio below 1.1 |" in page
    assert "## Baskets" in page and "| first | 1,200 | 0.50 |" in page
    output = capsys.readouterr().out
    assert "fruit: 2 claims, computed in seconds; nothing is trained" in output
    assert "contradicted" in output
    quick = run_study(STUDY, quick=True, arms=["near"])
    assert list(quick["arms"]) == ["near"] and quick["arms"]["near"] == record["arms"]["near"]
    assert (tmp_path / "runs/studies/fruit-quick/report.md").exists()
    publish(STUDY, tmp_path / "docs")
    index = (tmp_path / "docs/index.md").read_text()
    assert " | 2 claims | holds: 1, contradicted: 1 | computed |" in index


def test_calculation_has_no_runs():
    assert engine.plan(STUDY) == []
    with pytest.raises(UserError, match="fruit has nothing to train; run it without `train`"):
        engine.train(STUDY, 0)
    with pytest.raises(UserError, match="no arm of fruit is called 'fat'; did you mean far"):
        run_study(STUDY, arms=["fat"])
