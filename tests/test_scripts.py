"""The scripts as a user starts them."""

import json
import os
import runpy
import sys

import pytest
from helpers import SCRIPTS, run_script

from jaxcnn import PRESETS
from jaxcnn.benchmarks.compare import cpu_count

AS_A_USER = {"XLA_FLAGS": ""}  # with LLVM's optimizations


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """What the README's first command does: no preset, no download."""
    folder = tmp_path_factory.mktemp("first")
    done = run_script("train.py", "--workdir", folder, **AS_A_USER)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_train_first_command_reaches_95_percent(first_run):
    folder, done = first_run
    result = json.loads((folder / "result.json").read_text())
    assert result["test_accuracy"] >= 0.95 and result["dataset"] == "mnist5k"
    assert f"{result['test_accuracy']:.2%}" in done.stdout and str(folder) in done.stdout
    assert done.stderr == ""
    if result["devices"][0].startswith("cpu") and "JAX_NUM_CPU_DEVICES" not in os.environ:
        assert len(result["devices"]) == (2 if cpu_count() == 2 else 1)


@pytest.mark.slow
def test_evaluate_agrees_with_the_result_and_draws(first_run):
    folder, _ = first_run
    flags = ["--saliency", 7, 0, "--embedding"]
    done = run_script("evaluate.py", folder, *flags, **AS_A_USER)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    result = json.loads((folder / "result.json").read_text())
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert evaluation["test_accuracy"] == result["test_accuracy"]
    assert evaluation["test_loss"] == pytest.approx(result["test_loss"], rel=1e-6)
    correct = sum(evaluation["confusion"][i][i] for i in range(10))
    assert correct / result["num_test_examples"] == result["test_accuracy"]
    accuracies = evaluation["shift_accuracies"]
    assert accuracies[0] == result["test_accuracy"] and evaluation["num_shifted_examples"] == 1000
    assert len(accuracies) == 5 and accuracies == sorted(accuracies, reverse=True)
    pictures = ("confusion", "mistakes", "calibration", "rejection", "filters", "feature_maps")
    for picture in (*pictures, "shifts", "embedding", "saliency"):
        assert (folder / f"{picture}.png").stat().st_size > 10_000


def run_in_this_process(script, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--views", "10"],
            "--views is 10: 10 views are parts of an image, but no transform of the run is a crop",
        ),
        (["--saliency", "0", "-1"], "--saliency is -1; expected the index of a test image"),
        (["--image", "1000"], "--image is 1000; expected the index of a test image, 0 to 999"),
    ],
)
def test_evaluate_refuses_what_the_run_does_not_fit(
    arguments, message, first_run, monkeypatch, capsys
):
    with pytest.raises(SystemExit) as exit:
        run_in_this_process("evaluate.py", [first_run[0], *arguments], monkeypatch)
    error = capsys.readouterr().err
    assert exit.value.code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "script",
    ["train.py", "evaluate.py", "predict.py", "demo.py", "convert.py", "summary.py"],
)
def test_scripts_need_no_jax_for_help(script):
    done = run_script(script, "--help", python=["-X", "importtime"])
    assert done.returncode == 0 and "usage" in done.stdout
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in modules and not modules & {"jax", "flax", "orbax", "tensorflow_datasets"}


def test_train_list_shows_every_card():
    done = run_script("train.py", "--list")
    assert done.returncode == 0
    for name, preset in PRESETS.items():
        assert name in done.stdout and preset.card in done.stdout


@pytest.mark.parametrize(
    ("flags", "preset"),
    [
        (["--epochs", "3"], "lenet5-mnist"),
        (["--model", "lenet5-relu"], "custom"),
        (["--dataset", "folder:images"], "custom"),
    ],
)
def test_train_names_another_model_or_dataset_custom(flags, preset, monkeypatch):
    configs = []
    monkeypatch.setattr(
        "jaxcnn.training.train.train_and_evaluate", lambda config, **_: configs.append(config)
    )
    run_in_this_process("train.py", ["lenet5-mnist", *flags], monkeypatch)
    (config,) = configs
    assert config.preset == preset


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (
            "train.py",
            ["lenet5-mnits"],
            "no preset is called 'lenet5-mnits'; did you mean lenet5-mn",
        ),
        ("train.py", ["--seeds"], "--seeds is empty; expected one seed or several"),
        ("train.py", ["--epochs", "0", "lenet5-mnist"], "--epochs is 0; expected in [1, 2^31)"),
        ("train.py", ["--model", "resnet"], "no model is called 'resnet'"),
        (
            "train.py",
            ["--transforms", "crop:sise=24"],
            "'crop:sise=24' has 'sise=24'; expected fields each once, as in crop:size=32,",
        ),
        ("train.py", ["--transforms", "flap"], "no transform is called 'flap'; did you mean flip"),
        (
            "predict.py",
            ["runs/mine"],
            "there are no images; expected RUN IMAGE..., or --pretrained NAME",
        ),
        ("predict.py", ["--pretrained", "lenet5-mnist"], "there are no images; expected"),
        (
            "predict.py",
            ["--pretrained", "lenet", "a.png"],
            "no set of pretrained weights is called",
        ),
        ("predict.py", ["a", "b.png", "--json", "--csv"], "--json and --csv are both set"),
        (
            "evaluate.py",
            ["a", "--pretrained", "lenet5-mnist"],
            "expected either the folder of a run",
        ),
        ("summary.py", [], "expected either the name of a network or --pretrained NAME"),
        (
            "convert.py",
            ["a.pth", "--pretrained", "lenet5-1998-mnist"],
            "no convertible model is called 'lenet5-1998-lecun-uniform'",
        ),
        ("evaluate.py", ["no-such-folder"], "no-such-folder holds no run"),
        ("evaluate.py", [__file__], f"{__file__} holds no run"),
    ],
)
def test_scripts_refuse_a_request_in_one_line(
    script, arguments, message, tmp_path, monkeypatch, capsys
):
    place = ["--workdir", str(tmp_path)] if script == "train.py" else []
    with pytest.raises(SystemExit) as exit:
        run_in_this_process(script, [*arguments, *place], monkeypatch)
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
