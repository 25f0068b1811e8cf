"""A run of version 0.1.0, whose config.json holds the preset's card, is still a run."""

import dataclasses
import json
import pathlib
import tarfile

import pytest

from jaxcnn import train_and_evaluate
from jaxcnn.errors import UserError
from jaxcnn.evaluation.evaluate import evaluate_run
from jaxcnn.interop.runs import export_run
from jaxcnn.interop.weight_files import read_weights
from jaxcnn.workdir.folder import lock_run_folder, read_config

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
