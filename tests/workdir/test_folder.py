"""A run of version 0.1.0, whose config.json holds the preset's card, is still a run."""

import dataclasses
import json
import pathlib
import tarfile

import pytest

from jaxcnn import train_and_evaluate
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import evaluate_run
from jaxcnn.interop.runs import export_run
from jaxcnn.interop.weight_files import read_weights
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.folder import lock_run_folder, read_config, read_result

OLD_RUN = pathlib.Path(__file__).with_name("run-of-0.1.0.tar.xz")
ACCURACY, LOSS = 0.899, 0.3394  # that version's, at the end of the run


@pytest.fixture
def old_run(tmp_path):
    """At step 60 of 80, as if it had been killed."""
    with tarfile.open(OLD_RUN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run"


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
