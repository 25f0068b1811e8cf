"""Runs made of weight files, and weight files made of runs."""

import dataclasses
import runpy
import sys

import chex
import jax
import numpy as np
import pytest
import torch_networks
from helpers import SCRIPTS, run_script

from jaxcnn import PRESETS, evaluate_run
from jaxcnn.config import TrainConfig
from jaxcnn.data import datasets
from jaxcnn.errors import UserError
from jaxcnn.interop.runs import export_run, import_run
from jaxcnn.interop.torch_weights import to_torch
from jaxcnn.interop.trained import load_run
from jaxcnn.interop.weight_files import read_weights, write_weights
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.progress import start_or_resume
from jaxcnn.workdir import folder as workdir
from jaxcnn.workdir.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def imported(entries, tmp_path_factory):
    """A run that the script made of a file."""
    folder = tmp_path_factory.mktemp("imported")
    write_weights(folder / "lenet5.safetensors", entries)
    run_folder = folder / "run"
    flags = ["--preset", "lenet5-mnist5k", "--model", "lenet5"]
    flags += ["--pixel-mean", 0.25, "--pixel-std", 0.5]
    done = run_script("convert.py", folder / "lenet5.safetensors", run_folder, *flags)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert f"evaluate.py {run_folder}" in done.stdout
    return run_folder


@pytest.mark.slow
def test_import_run_evaluates_as_pytorch_does(imported, entries, figures):
    torch = pytest.importorskip("torch")
    theirs, dataset = torch_networks.lenet5(torch), datasets.load("mnist5k")
    theirs.load_state_dict({name: torch.tensor(array) for name, array in entries.items()})
    images = (dataset.test_images.astype(np.float32) / 255 - 0.25) / 0.5
    labels = torch.tensor(dataset.test_labels).long()
    with torch.no_grad():
        logits = theirs(torch.tensor(np.moveaxis(images, -1, 1)))
    answers = torch.softmax(logits, 1).argmax(1)  # the notebook's
    assert len(answers.unique()) > 1

    evaluation = evaluate_run(imported)
    assert evaluation["step"] == 0
    assert evaluation["test_accuracy"] == pytest.approx((answers == labels).float().mean().item())
    loss = torch.nn.functional.cross_entropy(logits, labels).item()
    assert evaluation["test_loss"] == pytest.approx(loss, rel=1e-4)


def test_export_run_gives_the_imported_bits(imported, entries, tmp_path):
    assert export_run(imported, tmp_path / "lenet5.safetensors") == 0
    chex.assert_trees_all_equal(read_weights(tmp_path / "lenet5.safetensors"), entries)
    with pytest.raises(UserError, match="no checkpoint of step 7; there are 0"):
        export_run(imported, tmp_path / "lenet5.safetensors", step=7)


def test_load_run_keeps_its_compiled_programs(imported, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXCNN_CACHE_DIR", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        load_run(imported)
        found = jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert found == str(tmp_path / "xla")


@pytest.mark.slow
def test_import_run_and_export_run_take_averaged_parameters(entries, tmp_path):
    write_weights(tmp_path / "lenet5.safetensors", entries)
    config = TrainConfig(dataset="mnist5k", ema_decay=0.9)
    import_run(tmp_path / "lenet5.safetensors", tmp_path / "run", config)
    config = workdir.read_config(tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        state, progress = checkpoints.restore(Experiment(config).state, 0)
        assert state.eval_params is not state.params
        chex.assert_trees_all_equal(state.eval_params, state.params)
        doubled = jax.tree.map(lambda leaf: 2 * leaf, state.params)
        later = state.replace(step=state.step + 1, params=doubled)
        checkpoints.save(later, progress)
        checkpoints.wait()
    assert export_run(tmp_path / "run", tmp_path / "mean.safetensors") == 1
    chex.assert_trees_all_equal(read_weights(tmp_path / "mean.safetensors"), entries)


def test_import_run_refuses_a_folder_that_holds_a_run(imported, entries, tmp_path):
    write_weights(tmp_path / "other.safetensors", {n: 2 * a for n, a in entries.items()})
    for config in (workdir.read_config(imported), TrainConfig(dataset="mnist5k", seed=1)):
        before = (imported / "config.json").read_bytes()
        with pytest.raises(UserError, match="already holds a run; choose another folder"):
            import_run(tmp_path / "other.safetensors", imported, config)
        assert (imported / "config.json").read_bytes() == before
    export_run(imported, tmp_path / "kept.safetensors")
    chex.assert_trees_all_equal(read_weights(tmp_path / "kept.safetensors"), entries)


def test_import_run_leaves_no_folder_for_other_weights(entries, tmp_path):
    config = TrainConfig(dataset="mnist5k")
    write_weights(tmp_path / "part.safetensors", {"conv1.bias": entries["conv1.bias"]})
    with pytest.raises(UserError, match="conv1.weight is missing"):
        import_run(tmp_path / "part.safetensors", tmp_path / "run", config)
    assert not (tmp_path / "run").exists()


def test_import_run_is_where_training_starts(imported, entries, monkeypatch):
    monkeypatch.setattr(Experiment, "compile", lambda self: 0.0)  # nothing is trained here
    experiment = Experiment(workdir.read_config(imported))
    with Checkpoints(imported / "checkpoints") as checkpoints:
        run = start_or_resume(experiment, checkpoints, started=0.0)
    chex.assert_trees_all_equal(to_torch("lenet5", run.state.params), entries)
    chex.assert_trees_all_equal(run.state.opt_state, experiment.state.opt_state)
    assert run.step == 0 and run.metrics == experiment.no_metrics() and run.test is None
    assert experiment.config.workdir == str(imported)
    recipe = dataclasses.replace(
        PRESETS["lenet5-mnist5k"].config, model="lenet5", workdir=str(imported)
    )
    recipe = dataclasses.replace(recipe, preset="custom")
    recipe = dataclasses.replace(recipe, pixel_mean=(0.25,), pixel_std=(0.5,))
    assert recipe == experiment.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b"], "a holds no run"),
        (["a.pth", "b.pth"], "the arguments are 'a.pth' and 'b.pth'; expected weights in a file"),
        (["import", "a", "b"], "the arguments are 'a' and 'b'; expected weights in a file that"),
        (["a"], "the arguments are 'a'; expected the folder of a run and a file"),
        (
            ["a", "b.onnx", "--pretrained", "lenet5-mnist"],
            "the arguments are 'a' 'b.onnx'; expected a file",
        ),
        (["a.pth", "b", "--preset", "lenet5-mnits"], "no preset is called 'lenet5-mnits'; did"),
    ],
)
def test_convert_refuses_a_request_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["convert.py", *arguments])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SCRIPTS / "convert.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
