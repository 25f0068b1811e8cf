"""Studies from their runs to their report."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import SCRIPTS, run_script, start_script, write_run

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.errors import UserError
from jaxcnn.studies import compare, engine, rates, run_study, runs
from jaxcnn.studies.measures import test_error as measured_error
from jaxcnn.studies.publish import publish
from jaxcnn.studies.report import QUICK
from jaxcnn.studies.study import Arm, Published, Study
from jaxcnn.workdir.folder import default_workdir

CONFIG = dataclasses.replace(PRESETS["lenet5-mnist5k"].config, epochs=1)
FAST = dataclasses.replace(
    CONFIG, optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=4e-3)
)
STUDY = Study(
    name="rates",
    claim="A larger rate is better.",
    source="this test",
    arms=(
        Arm("slow", CONFIG),
        Arm("fast", FAST, published=Published(99.0, "a table of this test", "text"), expected=-1),
    ),
    quantity="test_error",
    label="test error (%)",
    measure=measured_error,
    falsifier="It is not.",
)


ACCURACIES = {CONFIG: (0.90, 0.92), FAST: (0.93, 0.91)}  # of seeds 0 and 1


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The current folder, with a finished run of each arm and seed, one of them elsewhere."""
    monkeypatch.chdir(tmp_path)
    for config, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            config = dataclasses.replace(config, seed=seed)
            own = config.optimizer == FAST.optimizer and seed == 1
            write_run(
                Path("runs/of/the/user" if own else default_workdir(config)), config, accuracy
            )


def _accuracy_and_certainty(run):
    """A measure of its own of an arm that shares its runs with another."""
    return {"test_error": measured_error(run)["test_error"] / 2}


def _fitted(config):
    """A classifier that is not trained by steps."""
    return {"test_error": 1.0 + config.seed, "num_test_examples": 500}


def test_run_study_measures_arms_that_share_runs_and_arms_without_a_run(
    trained, monkeypatch, capsys
):
    monkeypatch.setattr(runs, "train_jobs", None)  # nothing is trained
    printed = Published(3.0, "a table of this test", "text")
    arms = (
        Arm("trained", CONFIG),
        Arm("same run", CONFIG, measure=_accuracy_and_certainty),
        Arm("fitted", CONFIG, fit=_fitted, also_published={"test_error": printed}),
    )
    study = dataclasses.replace(STUDY, arms=arms, also={"test_error": "error (%)"})
    record = run_study(study, seeds=[0, 1])
    assert record["arms"]["same run"]["values"] == pytest.approx([5, 4])
    assert record["arms"]["fitted"]["values"] == [1, 2] and "fitted" not in record["runs"]
    assert record["arms"]["fitted"]["sampling_std"] == pytest.approx(
        100 * (0.015 * 0.985 / 500) ** 0.5
    )
    assert "(published: 3)" in Path("runs/studies/rates/report.md").read_text()
    assert engine.plan(study, range(2)) == []
    assert capsys.readouterr().out.count("measuring") == 6
    assert run_study(study, seeds=[0, 1]) == record
    assert "measuring" not in capsys.readouterr().out


def test_run_study_uses_the_runs_that_are_there(trained, monkeypatch, capsys):
    monkeypatch.setattr(runs, "train_jobs", None)  # nothing is trained
    record = run_study(STUDY, seeds=[0, 1])
    assert record["runs"]["fast"][1] == "runs/of/the/user"
    slow, fast = (record["arms"][name] for name in ("slow", "fast"))
    assert slow["values"] == pytest.approx([10, 8]) and fast["values"] == pytest.approx([7, 9])
    assert slow["sampling_std"] == pytest.approx(100 * (0.09 * 0.91 / 1000) ** 0.5)
    assert fast["difference"]["mean"] == pytest.approx(-1)
    assert (fast["difference"]["num_positive"], fast["difference"]["num_negative"]) == (1, 1)
    assert fast["verdict"] == "not reproduced"  # 99 %, and the sign differs between seeds
    assert fast["conclusion"].endswith("the sign is as claimed in 1 of 2 seeds")
    folder = Path("runs/studies/rates")
    assert json.loads((folder / "study.json").read_text()) == record
    assert (folder / "figure.png").stat().st_size > 10_000
    assert (folder / "figure.svg").read_text().startswith("<?xml")
    page = (folder / "report.md").read_text()
    assert "| fast | " in page and "99: a table of this test (text)" in page
    output = capsys.readouterr().out
    assert "4 of 4 runs are there already" in output and "A larger rate is better." in output
    assert run_study(STUDY, seeds=[0, 1]) == record  # measured once, with the same result
    assert "measuring" not in capsys.readouterr().out


def test_run_study_measures_again_what_is_damaged(trained, monkeypatch, capsys):
    monkeypatch.setattr(runs, "train_jobs", None)
    monkeypatch.setattr(engine, "write_result", lambda *_: None)
    record = run_study(STUDY, seeds=[0])
    cache = Path("runs/studies/rates/measured.json")
    whole = json.loads(cache.read_text())
    damaged = [b"", b"[]", b"\xff", json.dumps(dict.fromkeys(whole, 3)).encode()]
    for change in ({"measured": 3}, {"measured": {"test_error": 1.0}}, {"result": 1}):
        entries = {path: entry | change for path, entry in whole.items()}
        damaged.append(json.dumps(entries).encode())
    for content in damaged:
        cache.write_bytes(content)
        capsys.readouterr()
        assert run_study(STUDY, seeds=[0]) == record
        assert capsys.readouterr().out.count("measuring") == 2
    assert json.loads(cache.read_text()) == whole


def test_run_study_measures_again_what_is_measured_otherwise(trained, monkeypatch, capsys):
    monkeypatch.setattr(runs, "train_jobs", None)
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a reload within a second reads it
    source = "def measure(run):\n    return {'test_error': %d}\n"
    Path("measure_of_this_test.py").write_text(source % 1)
    module = importlib.import_module("measure_of_this_test")

    def measured():
        study = dataclasses.replace(STUDY, measure=module.measure)
        mean = run_study(study, seeds=[0])["arms"]["slow"]["mean"]
        return mean, "measuring" in capsys.readouterr().out

    assert measured() == (1, True) and measured() == (1, False)
    Path("measure_of_this_test.py").write_text(source % 2)
    importlib.reload(module)
    assert measured() == (2, True)


def test_run_study_trains_what_is_missing(trained, monkeypatch):
    asked = []

    def stop(jobs, watch, at_a_time):
        asked.extend((job.name, job.config.seed) for job in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "train_jobs", stop)
    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, seeds=[0, 1, 2])
    assert asked == [("slow, seed 2", 2), ("fast, seed 2", 2)]
    assert engine.plan(STUDY, [1, 2], arms=["fast"]) == [("fast", 2, None)]


def test_run_study_trains_runs_that_arms_and_seeds_share_once(trained, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "train_jobs", lambda jobs, watch, at_a_time: asked.extend(jobs))
    again = dataclasses.replace(STUDY.arms[0], name="slow again")
    study = dataclasses.replace(STUDY, arms=(STUDY.arms[0], again), together=4)
    monkeypatch.setattr(engine, "write_result", lambda *_: None)
    record = run_study(study, seeds=[1])
    assert [job.config.seed for job in asked] == [2, 3]
    assert record["seeds"] == [1] and record["runs"]["slow"] == record["runs"]["slow again"]
    assert engine.plan(study, [1]) == [("slow", 2, None), ("slow", 3, None)]
    assert study.size == "2 arms, 5 seeds, 5 min on two cores"
    rated = dataclasses.replace(study, rates=(1e-3,))
    assert len(engine.plan(rated, [0])) == 1


def test_rates_are_chosen_on_the_validation_split_and_planned_first(trained, monkeypatch):
    fast = Arm("fast", dataclasses.replace(CONFIG, label_smoothing=0.1), rates=(1e-3, 4e-3))
    study = dataclasses.replace(
        STUDY, arms=(STUDY.arms[0], fast), rates=(1e-3, 3e-3), trial_epochs=2
    )
    val_accuracies = {
        **{("slow", 1e-3): 0.91, ("slow", 3e-3): 0.90},
        **{("fast", 1e-3): 0.92, ("fast", 4e-3): 0.92},
    }
    assert engine.plan(study, [0, 1]) == [(arm, 0, rate) for arm, rate in val_accuracies]
    for arm in rates.trials(study).arms:
        config = runs.with_seed(arm, 0)
        assert config.val_fraction == pytest.approx(1 / 12) and config.epochs == 2
        key = (arm.name.partition(",")[0], config.optimizer.learning_rate)
        # The rate that is better on the test set is the worse one on the validation split.
        accuracy = 0.5 if config.optimizer.learning_rate == 1e-3 else 0.99
        write_run(Path(config.workdir), config, accuracy, val_accuracy=val_accuracies[key])
    assert engine.plan(study, [0]) == [("slow", 0, None), ("fast", 0, None)]
    chosen, tried = rates.choose(study)
    assert [arm.config.optimizer.learning_rate for arm in chosen.arms] == [1e-3, 1e-3]
    assert tried["slow"]["chosen"] == 1e-3 and tried["slow"]["val_error"]["0.003"] == (
        pytest.approx(10)
    )
    assert [arm.config.epochs for arm in chosen.arms] == [1, 1]
    for arm in chosen.arms:
        write_run(Path(runs.with_seed(arm, 0).workdir), runs.with_seed(arm, 0), 0.9)
    monkeypatch.setattr(runs, "train_jobs", None)
    record = run_study(study, seeds=[0])
    assert record["rates"] == tried
    page = Path("runs/studies/rates/report.md").read_text()
    assert "held out with seed 0, after 2 epochs:" in page
    assert "| slow | 9.00 | 10.00 |  | 0.001 |" in page


def test_compare_pairs_the_configs_of_the_caller(trained, monkeypatch):
    monkeypatch.setattr(runs, "train_jobs", None)
    record = compare({"slow": CONFIG, "fast": FAST}, seeds=[0, 1])
    assert record["arms"]["fast"]["difference"]["num_positive"] is not None
    with pytest.raises(UserError, match="there is 1 arm; expected at least two"):
        compare({"slow": CONFIG})


def test_run_study_does_not_confuse_folders_of_images(trained, tmp_path):
    def arm(name):
        dataset = f"folder:{tmp_path / name / 'images'}"
        return Arm(name, dataclasses.replace(CONFIG, dataset=dataset, preset="custom"))

    first, second = arm("first"), arm("second")
    config = runs.with_seed(first, 0)
    write_run(Path("runs/first"), config, 0.9)
    study = dataclasses.replace(STUDY, arms=(first, second))
    assert [arm.name for arm, _ in runs.missing_runs(study, [0])] == ["second"]
    with pytest.raises(UserError, match="second, seed 1, and first, seed 1 would both be kept in"):
        run_study(study, seeds=[1])


def test_study_refuses_numbers_out_of_range(trained):
    with pytest.raises(UserError, match="`jobs` is 0; expected at least 1"):
        run_study(STUDY, seeds=[0, 1, 2], jobs=0)
    with pytest.raises(UserError, match="`seeds` is empty"):
        compare({"slow": CONFIG, "fast": FAST}, seeds=[])


@pytest.mark.slow
def test_quick_trials_share_their_runs(tmp_path, monkeypatch, capsys):
    # The third study that the default tests try is that of costs, in test_cost.py.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "train_jobs", train_here)
    arms = {"seeds": "lenet5-mnist", "notebook": "one softmax, linen's initial values"}
    records = {}
    for there, (name, arm) in enumerate(arms.items()):
        records[name] = run_study(name, quick=True, arms=[arm])
        assert f"{name}: 1 arms x 1 seeds, {there} of 1 runs are there" in capsys.readouterr().out
        folder = tmp_path / f"runs/studies/{name}-quick"
        assert json.loads((folder / "study.json").read_text()) == records[name]
        assert QUICK in (folder / "report.md").read_text()
        assert (folder / "figure.png").stat().st_size > 10_000
    assert [*records["seeds"]["runs"].values()] == [*records["notebook"]["runs"].values()]
    seeds, notebook = (records[name]["arms"][arm] for name, arm in arms.items())
    first, second = notebook["curves"]["train_loss"][0]
    assert 0 < second < first and 0 < seeds["mean"] < 90


def train_here(jobs, watch, at_a_time):
    """Train as `train_jobs` does, but in this process, which has imported jax already."""
    for job in jobs:
        train_and_evaluate(job.config)


def test_run_study_refuses_unknown_names():
    with pytest.raises(UserError, match="no study is called 'shfit'; did you mean shift"):
        run_study("shfit")
    with pytest.raises(UserError, match="no arm of rates is called 'fest'; did you mean fast"):
        run_study(STUDY, arms=["fest"])


def test_publish_writes_a_page_and_the_list_of_all(trained, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "train_jobs", None)
    other = dataclasses.replace(STUDY, name="others", arms=STUDY.arms[:1])
    for study in (other, STUDY):
        run_study(study, seeds=[0, 1])
        publish(study, tmp_path / "docs")
    assert {path.name for path in (tmp_path / "docs").iterdir()} == {
        *("index.md", "rates.md", "rates.png", "rates.json"),
        *("others.md", "others.png", "others.json"),
    }
    assert "![test error (%)](rates.png)" in (tmp_path / "docs" / "rates.md").read_text()
    index = (tmp_path / "docs" / "index.md").read_text()
    assert (
        "| [`study.py rates`](rates.md) | A larger rate is better. | test error (%):<br>"
        "slow 9.00 ± 1.41<br>fast 8.00 ± 1.41 (published: 99) | not reproduced | 2 |"
    ) in index
    assert index.endswith("\nothers\nrates\n```\n")
    with pytest.raises(UserError, match="holds no result; run the study first"):
        publish(dataclasses.replace(STUDY, name="third"), tmp_path)


def test_study_array_runs_a_line_of_the_plan(tmp_path):
    (tmp_path / "jobs").write_text("echo first\necho 'no pool' --train 3\n")
    script = SCRIPTS / "launch" / "study_array.sh"
    for variable in ({"SLURM_ARRAY_TASK_ID": "2"}, {"JOB_COMPLETION_INDEX": "1"}):
        done = subprocess.run(
            ["bash", script, tmp_path / "jobs"],
            env=os.environ | variable,
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("no pool --train 3\n", "")


@pytest.mark.slow
def test_killed_study_ends_as_one_that_was_not(tmp_path):
    command = ["study.py", "shift", "--quick", "--arms", "no pool", "average"]
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
    process = start_script(*command, cwd=tmp_path / "killed")
    while not list((tmp_path / "killed").glob("runs/*/metrics.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its children end by themselves
    records = []
    for name in ("killed", "whole"):
        done = run_script(*command, cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        records.append((tmp_path / name / "runs/studies/shift-quick/study.json").read_text())
    assert records[0] == records[1]
    assert json.loads(records[0])["quick"]
