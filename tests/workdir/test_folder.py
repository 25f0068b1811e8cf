"""A run of version 0.1.0, whose config.json holds the preset's card, is still a run."""

import dataclasses
import json
import pathlib
import tarfile
from dataclasses import replace

import chex
import pytest

from jaxcnn import PRESETS, load_initial_params, train_and_evaluate
from jaxcnn.config import TrainConfig, to_json
from jaxcnn.data.transforms import HorizontalFlip, RandomCrop
from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import evaluate_run
from jaxcnn.interop.runs import export_run
from jaxcnn.interop.trained import load_run
from jaxcnn.interop.weight_files import read_weights
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.folder import (
    continued,
    default_workdir,
    lock_run_folder,
    read_config,
    read_result,
)

OLD_RUN = pathlib.Path(__file__).with_name("run-of-0.1.0.tar.xz")
ACCURACY, LOSS = 0.899, 0.3394  # that version's, at the end of the run


@pytest.fixture
def old_run(tmp_path):
    """At step 60 of 80, as if it had been killed."""
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run"


@pytest.mark.slow
def test_read_config_of_an_old_run_continues_to_its_result(old_run):
    assert json.loads((old_run / "config.json").read_text())["card"]
    config = dataclasses.replace(read_config(old_run), workdir=str(old_run))
    result = train_and_evaluate(config)
    assert result["steps"] == 80
    assert result["test_accuracy"] == pytest.approx(ACCURACY, abs=0.003)
    assert result["test_loss"] == pytest.approx(LOSS, rel=0.01)


def test_read_config_of_an_old_run_is_evaluated_and_exported(old_run, tmp_path):
    assert evaluate_run(old_run)["step"] == 60
    step = export_run(old_run, tmp_path / "weights.safetensors")
    assert step == 60 and read_weights(tmp_path / "weights.safetensors")


def test_lock_run_folder_refuses_a_second_process(old_run):
    config = dataclasses.replace(read_config(old_run), workdir=str(old_run))
    with lock_run_folder(config):
        with pytest.raises(UserError, match="another process is training"):
            with lock_run_folder(config):
                pass


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[]"])
def test_read_config_and_read_result_say_what_to_do(content, old_run):
    for name, read in (("config.json", read_config), ("result.json", read_result)):
        (old_run / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} is not a .*; delete the file and start the"):
            read(old_run)


@pytest.mark.slow
def test_continued_run_of_an_old_version_is_trained_further_and_fine_tuned(old_run, tmp_path):
    old = dataclasses.replace(read_config(old_run), workdir=str(old_run))
    assert train_and_evaluate(old)["steps"] == 80
    longer = continued(dataclasses.replace(old, epochs=2 * old.epochs))
    result = train_and_evaluate(longer)
    assert (result["steps"], result["continued_from"]) == (160, [old.epochs])
    with Checkpoints(old_run / "checkpoints", read_config(old_run)) as checkpoints:
        assert checkpoints.steps()[-1] == 160
    tuned = dataclasses.replace(
        old, init_from=str(old_run), freeze=("C1",), epochs=1, workdir=str(tmp_path / "tuned")
    )
    result = train_and_evaluate(tuned, initial_params=load_initial_params(tuned))
    assert result["test_accuracy"] > 0.85
    first = load_run(old_run).params["C1"]
    chex.assert_trees_all_equal(load_run(tmp_path / "tuned").params["C1"], first)


def test_continued_finds_the_run_that_differs_in_its_length_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    preset = PRESETS["lenet5-mnist"].config
    longer = dataclasses.replace(preset, epochs=20)

    def write(name, **fields):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(to_json(dataclasses.replace(preset, **fields)))

    with pytest.raises(UserError, match="there are none; name the folder"):
        continued(longer)
    write("a")
    write("another seed", seed=1)
    write("damaged")
    (tmp_path / "runs" / "damaged" / "config.json").write_text("{}")
    expected = dataclasses.replace(longer, workdir="runs/a", continued_from=(10,))
    assert continued(longer) == expected
    write("b", epochs=5)
    with pytest.raises(UserError, match="there are 2, runs/a, runs/b; name the folder"):
        continued(longer)
    write("a", epochs=20, continued_from=(10,))  # the same command again
    assert continued(dataclasses.replace(longer, workdir="runs/a")) == expected
    further = continued(dataclasses.replace(longer, epochs=30, workdir="runs/a"))
    assert further.continued_from == (10, 20)


@pytest.mark.parametrize("epochs", [9, 10])
def test_continued_refuses_a_length_that_is_not_longer(epochs, tmp_path):
    (tmp_path / "config.json").write_text(to_json(TrainConfig()))
    with pytest.raises(UserError, match=rf"`epochs` is {epochs}, but .* has 10 already"):
        continued(TrainConfig(epochs=epochs, workdir=str(tmp_path)))


def test_lock_run_folder_refuses_old_checkpoints_without_a_config(old_run):
    config = dataclasses.replace(read_config(old_run), workdir=str(old_run))
    (old_run / "config.json").unlink()
    with Checkpoints(old_run / "checkpoints", config) as checkpoints:
        with pytest.raises(UserError, match="config.json is missing, and .*60, of an earlier ver"):
            checkpoints.resolve_step(None)


def test_lock_run_folder_removes_a_new_folder_that_stays_empty(tmp_path):
    config = TrainConfig(workdir=str(tmp_path / "run"))
    with pytest.raises(KeyError), lock_run_folder(config):
        raise KeyError
    assert not (tmp_path / "run").exists()
    with lock_run_folder(config) as workdir:
        (workdir / "config.json").touch()
    assert (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("preset", "fields", "folder"),
    [
        ("lenet5-mnist", {}, "lenet5-mnist-seed0"),
        ("lenet5-mnist", {"epochs": 3, "seed": 1}, "lenet5-mnist-epochs=3-seed1"),
        ("lenet5-mnist", {"workdir": None, "eval_batch_size": 7}, "lenet5-mnist-seed0"),
        ("lenet5-mnist", {"dtype": "bfloat16"}, "lenet5-mnist-dtype=bfloat16-seed0"),
        (
            "lenet5-mnist",
            {"transforms": (RandomCrop(28, 2), HorizontalFlip())},
            "lenet5-mnist-transforms=crop_size=28,padding=2,flip-seed0",
        ),
        ("custom", {"model": "alexnet", "dataset": "folder:/a/b c/"}, "alexnet-b_c-seed0"),
    ],
)
def test_default_workdir_names_what_differs_from_the_preset(
    preset, fields, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    base = PRESETS[preset].config if preset in PRESETS else TrainConfig()
    assert default_workdir(replace(base, **fields)) == f"runs/{folder}"


def test_default_workdir_cuts_long_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = {"pixel_mean": (0.1, 0.2, 0.3), "pixel_std": (0.1, 0.2, 0.3), "batch_size": 7}
    names = [
        default_workdir(TrainConfig(preset="lenet5-mnist", label_smoothing=x, epochs=5, **fields))
        for x in (0.1, 0.2)
    ]
    assert len({*names}) == 2 and all(len(name) < 110 for name in names)


def test_default_workdir_finds_a_run_of_an_earlier_version(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(PRESETS["lenet5-mnist"].config, epochs=3)
    earlier = tmp_path / "runs" / "lenet5-mnist-seed0"
    earlier.mkdir(parents=True)
    (earlier / "config.json").write_text(to_json(config))
    assert default_workdir(config) == "runs/lenet5-mnist-seed0"
    other = replace(config, epochs=4)
    assert default_workdir(other) == "runs/lenet5-mnist-epochs=4-seed0"
