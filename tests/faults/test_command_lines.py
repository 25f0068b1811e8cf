"""Bad command lines: one message, an exit status, no traceback, and nothing lost or created."""

import random
import runpy
import sys
from dataclasses import replace
from shlex import split
from unittest import mock

import pytest
from helpers import SCRIPTS, rounds

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.interop.runs import export_run

HUGE = "9" * 400
WHOLE = ["0", "-1", "1.5", "x", "", "1e3", "nan", HUGE, "9" * 5000, "2147483648", "1 2"]
REAL = ["nan", "inf", "-inf", "x", "", "1e999", "-1"]
FRACTION = [*REAL, "1", "2"]
PATHS = ["", "gs://bucket/run", "s3://b/r", "http://h/r", "hdfs://h/r", "~nosuchuser/r"]
PLACES = [*PATHS, "/dev/null/r", "/proc/r", "file", "file/r", "\0", "x" * 300, "a[1]/r"]

BAD_VALUES = {
    **dict.fromkeys(["--epochs", "--batch-size", "--eval-batch-size", "--stream-size"], WHOLE),
    **dict.fromkeys(["--log-every-steps", "--eval-every-epochs", "--model-axis"], WHOLE),
    **dict.fromkeys(["--checkpoint-every-steps", "--stream-min-size"], WHOLE),
    "--seed": ["-1", "0.5", "x", "", HUGE, "4294967296"],
    **dict.fromkeys(["--label-smoothing", "--ema-decay"], FRACTION),
    "--optimizer.learning-rate": [*REAL, "0"],
    "--optimizer.bias-rate": [*REAL, "0"],
    "--optimizer.clip-norm": REAL,
    "--optimizer.warmup-epochs": [*REAL, "10", "9.999", "1e308"],
    "--optimizer.momentum": [*FRACTION, "0.5"],  # 0.5 without sgd
    "--optimizer.mu": [*REAL, "0.4"],
    "--optimizer.weight-decay": [*REAL, "0.1"],
    "--optimizer.accumulate": [*WHOLE, "621"],
    "--optimizer.rate-steps": ["1", "1 0.1", "x 0.1", "nan 0.1", "2 0.1 1 0.1", "1 0"],
    "--optimizer.layer-decays": ["conv1", "conv1 x", "conv1 0.1", "conv1 nan", "a 0 a 0"],
    "--optimizer.nesterov": ["", "1"],
    "--optimizer.decay-biases": ["", "no"],
    "--optimizer.name": ["", "SGD", "adagrad", "diagonal-lm"],
    "--optimizer.schedule": ["", "step", "steps"],
    "--model": ["", "resnet", "lenet5 lenet5", "alexnet", "../lenet5", "__class__"],
    "--dataset": ["", "mnits", "folder:", "folder:nowhere", "folder:file", "folder:gs://b/d"]
    + ["tfds:", "tfds:nosuchset", "folder:~nosuchuser/x", "cifar10 mnist", "tfds:../x"],
    "--dtype": ["", "float64", "bf16"],
    "--eval-views": ["0", "3", "x", "5", "10", HUGE],
    "--on-bad-image": ["", "Skip"],
    "--pixel-mean": ["", "nan", "inf", "x", "0.5 0.5"],
    "--pixel-std": ["", "0", "nan", "inf", "-1", "x", "1 0", "0.5 0.5", "1e-320"],
    "--transforms": ["flap", "crop:", "crop:size", "crop:size=", "crop:size=0", "crop:size=-1"]
    + ["crop:size=28,padding=99999999", "crop:size=29", "crop:size=28,padding=-1", "resize:size=0"]
    + ["resize:size=99999999", "resize:size=1", "resize:size=x", f"resize:size={HUGE}", "=", ","]
    + ["affine:scale=1", "affine:scale=nan", "affine:degrees=inf", "affine:shear=90", "flip:p=1"]
    + ["affine:translate=-1", "pca-color:std=nan", "cutout:size=0", "cutout:size=99999999"]
    + [
        "crop:size=20,size=24",
        "pca-color:std=-1",
        "crop:padding=1:2",
        "flip,flip",
        "affine:scale=2",
    ],
    "--multihost": ["", "x"],
    "--coordinator": ["", "localhost:1", "x"],
    "--num-processes": ["0", "-1", "x", HUGE, "2"],
    "--process-id": ["-1", "x", "", "0"],
    "--workdir": PLACES,
    "--data-dir": PATHS,
    "--manual-dir": PATHS,
}
BAD_OTHERS = {
    "train.py": [
        "lenet5-mnits",
        "'' --epochs 1",
        "x y",
        "--epochs",
        "--nosuch 1",
        "--epochs=",
        "-e",
    ]
    + ["--optimizer", "--optimizer.nosuch 1", "--preset lenet5-mnist", "--no-epochs", "- x"],
    "evaluate.py": ["", "nowhere", "''", "file", "gs://b/r", "~nosuchuser/r", "RUN RUN", "RUN --x"]
    + ["RUN --step 7", "RUN --step -1", "RUN --step bes", f"RUN --step {HUGE}", "RUN --views 3"]
    + ["RUN --views 10", "RUN --views 5", "RUN --image -1", "RUN --image 1000", "RUN --image x"]
    + ["RUN --saliency -1", "RUN --saliency 0 1000", "RUN --saliency x", "RUN --embedding 3"]
    + [f"RUN --image {HUGE}", "RUN --data-dir gs://b", "RUN --manual-dir ''", "RUN --step ''"],
    "convert.py": ["", "RUN", "RUN ''", "'' RUN", "RUN .", "RUN RUN", "RUN w.h5", "RUN no/w.pth"]
    + ["export", "import", "export RUN", "export RUN w", "import RUN new", "import WEIGHTS"]
    + ["export RUN no/w.onnx", "export RUN w.onnx --views 10", "export RUN w.onnx --params beside"]
    + ["export RUN w.stablehlo --input uint16", "export RUN w.pth --output probabilities"]
    + [
        "export --pretrained nosuch w.onnx",
        "import WEIGHTS new --views 1",
        "export RUN file/w.onnx",
    ]
    + ["RUN gs://b/w.safetensors", "nowhere w.safetensors", "file w.safetensors", "WEIGHTS ''"]
    + ["WEIGHTS RUN", "WEIGHTS w.safetensors", "WEIGHTS new --model resnet", "WEIGHTS gs://b/r"]
    + ["WEIGHTS new --model alexnet", "WEIGHTS new --dataset mnits", "WEIGHTS new --step 1"]
    + ["WEIGHTS new --preset lenet5-mnits", "WEIGHTS file/new", "RUN w.pth --model lenet5"]
    + ["WEIGHTS new --dataset mnist5k --pixel-std 0", "RUN w.safetensors --step 7"]
    + ["WEIGHTS new --dataset mnist5k --transforms resize:size=0", "nowhere.safetensors new"]
    + [
        "empty.safetensors new --dataset mnist5k",
        "RUN w.safetensors --step ''",
        "RUN ~nosuchuser/w.pth",
    ]
    + ["WEIGHTS new --dataset folder:nowhere", "WEIGHTS new --dataset mnist5k --pixel-mean nan"],
    "predict.py": ["", "RUN", "nowhere x.png", "RUN x.png --json --csv", "RUN x.png --top 0"]
    + ["RUN x.png --figure .", "RUN x.png --views 3", "RUN x.png --step 7", "gs://b/r x.png"]
    + ["--pretrained nosuch x.png", "RUN x.png --on-bad-image skip", "RUN x.png --figure s3://b/f"],
    "demo.py": [
        "nowhere",
        "''",
        "RUN RUN",
        "gs://b/r",
        "file",
        "RUN --out .",
        "RUN --out no/a.html",
    ]
    + ["RUN --out ''", "RUN --out gs://b/a.html", "RUN --out file/a.html", "RUN --step 7"]
    + ["--step best", "RUN --pretrained lenet5-mnist", "--pretrained nosuch", "RUN --open x"],
    "compare.py": ["nowhere", "RUN --figure .", "gs://b/r", "RUN --figure no/a.png", "file"],
    "summary.py": ["", "lenet6", "''", "lenet5 --figure .", "lenet5 --figure ''", "lenet5 x"]
    + ["lenet5 --figure no/a.png", "lenet5 --figure gs://b/a.png", "lenet5 --figure file/a.png"]
    + ["lenet5 --num-classes 0", "lenet5 --num-classes -1", f"lenet5 --num-classes {HUGE}"]
    + ["lenet5-1998 --num-classes 7", "lenet5 --num-classes x", "lenet5 --figure /dev/null/a"],
    "benchmark.py": [
        "",
        "lenet5 --against ,",
        "lenet5 --against torhc",
        "lenet5 --against ' '",
    ]
    + [
        "lenet5 --batch-size",
        "lenet5 --batch-size 0",
        "lenet5 --batch-size 8 8",
        "lenet5 --rounds 0",
    ]
    + [
        f"lenet5 --batch-size {HUGE}",
        f"lenet5 --rounds {HUGE}",
        "lenet5 --seconds inf",
        "lenet5 -x",
    ]
    + ["lenet5 --seconds nan", "lenet5 --seconds 0", "lenet5 --seconds -1", "lenet5 --image-size 0"]
    + ["lenet5 --json .", "lenet5 --json ''", "lenet5 --json gs://b/j", "lenet5 --figure a.png"]
    + [
        "lenet5 --json no/j",
        "lenet5 --what fly",
        "lenet5 --what scale --batch-size 12",
        "lenet5 --what",
    ]
    + ["lenet5 --what startup --dtype bfloat16", "lenet5-mnits --what input", "vgg --what startup"]
    + ["lenet5-mnist5k --what input --dataset mnits", "alexnet --what startup --rounds 0"]
    + ["lenet5-mnist5k --what input --dataset folder:nowhere"],
}
HARMLESS = ["--epochs 2", "--seed 3", "--batch-size 32", "--eval-every-epochs 1", "--dtype float32"]


def command_lines():
    """Return (script, line) for each: every bad value alone, and again among harmless flags."""
    rng = random.Random(0)
    lines = [(script, line) for script, lines in BAD_OTHERS.items() for line in lines]
    for flag, values in BAD_VALUES.items():
        for value in values:
            bad = f"{flag} {value}" if value else f"{flag} ''"
            first, second = rng.sample([text for text in HARMLESS if flag not in text], 2)
            lines += [("train.py", bad), ("train.py", f"{first} {bad} {second}")]
    return lines


LINES = command_lines()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder with a text file and an empty file of weights."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "file").write_text("a text")
    (folder / "empty.safetensors").touch()
    return folder


@pytest.fixture(scope="module")
def places_with_run(places):
    """The same folder with a finished run and its weights."""
    run = places / "finished"
    config = replace(PRESETS["lenet5-mnist5k"].config, model="lenet5", epochs=1, workdir=str(run))
    train_and_evaluate(config)
    export_run(run, places / "weights.safetensors")
    return places


def snapshot(folder):
    """Return path -> (size, time of the last change) of all files in a folder, and its folders."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.slow
@pytest.mark.parametrize(("script", "line"), LINES)
def test_bad_command_line_ends_in_one_message(script, line, places_with_run, monkeypatch, capfd):
    assert_refused(script, line, places_with_run, monkeypatch, capfd)


QUICK = [line for line in LINES if "RUN" not in line[1] and "WEIGHTS" not in line[1]][::80]


@pytest.mark.parametrize(("script", "line"), QUICK)
def test_bad_command_line_ends_in_one_message_quickly(script, line, places, monkeypatch, capfd):
    assert_refused(script, line, places, monkeypatch, capfd)


@pytest.mark.fuzz
@pytest.mark.parametrize("count", [3, pytest.param(300, marks=pytest.mark.slow)])
def test_random_command_lines_are_accepted_or_end_in_one_message(count, places, monkeypatch, capfd):
    rng = random.Random(1)
    values = [value for values in BAD_VALUES.values() for value in [*values, "1", "2", "0.1"]]
    monkeypatch.setattr("jaxcnn.training.train.Experiment", mock.Mock(side_effect=SystemExit(0)))
    for _ in rounds(count):
        flags = rng.sample(sorted(BAD_VALUES), rng.randrange(1, 4))
        line = " ".join(f"{flag} {rng.choice(values) or repr('')}" for flag in flags)
        run_to_its_end("train.py", line, places, monkeypatch, capfd)


def assert_refused(script, line, places, monkeypatch, capfd):
    """Run a script in this process; assert that it refuses the line."""

    def accepted(*_, **__):
        raise AssertionError("the command line was accepted")

    monkeypatch.setattr("jaxcnn.training.train.train", accepted)
    monkeypatch.setattr("jaxcnn.benchmarks.compare.Worker", accepted)
    assert run_to_its_end(script, line, places, monkeypatch, capfd) in (1, 2)


def run_to_its_end(script, line, places, monkeypatch, capfd):
    """Run a script in this process; assert one message, unless the status is 0, and same files."""
    monkeypatch.chdir(places)
    monkeypatch.setenv("COLUMNS", "80")
    words = [{"RUN": "finished", "WEIGHTS": "weights.safetensors"}.get(w, w) for w in split(line)]
    monkeypatch.setattr(sys, "argv", [script, *words])
    before = snapshot(places)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / script), run_name="__main__")
    out, err = capfd.readouterr()
    status = end.value.code
    assert status in (0, 1, 2), (line, err)
    one_line = err.startswith("error: ") and err.count("\n") == 1
    assert status == 0 or one_line or err.startswith("╭─"), (line, err)
    # A message may repeat the user's words, which tyro also wraps and frames.
    assert len(err) < 4000 + 2 * len(line) and "Traceback" not in out + err
    assert snapshot(places) == before
    return status
