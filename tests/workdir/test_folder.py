"""A run of version 0.1.0, whose config.json holds the preset's card, is still a run."""

import dataclasses
import json
import pathlib
import tarfile
from dataclasses import replace

import pytest

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.config import TrainConfig, to_json
from jaxcnn.data.transforms import HorizontalFlip, RandomCrop
from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import evaluate_run
from jaxcnn.interop.runs import export_run
from jaxcnn.interop.weight_files import read_weights
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.folder import default_workdir, lock_run_folder, read_config, read_result

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
