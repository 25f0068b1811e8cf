"""Benchmarks: sides, workers, tables and the script."""

import functools
import io
import json
import re
import runpy
import statistics
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SCRIPTS, assert_close, random_params, run_script
from rich.console import Console

from jaxcnn import PRESETS
from jaxcnn.benchmarks import compare as comparing
from jaxcnn.benchmarks import (
    jax_sides,
    linen_networks,
    onnx_side,
    our_epochs,
    torch_networks,
    torch_side,
)
from jaxcnn.benchmarks import job as jobs
from jaxcnn.benchmarks import worker as serving
from jaxcnn.benchmarks.compare import Worker, compare
from jaxcnn.benchmarks.input import measure_input, print_input
from jaxcnn.benchmarks.job import Job, normalized, random_images
from jaxcnn.benchmarks.startup import measure_startup, print_startup
from jaxcnn.benchmarks.table import figures, print_comparison, short
from jaxcnn.data.datasets import DATASETS
from jaxcnn.errors import RunError, UserError
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.models.lenet_1998 import BITMAPS, TABLE_I
from jaxcnn.summary.summarize import summarize
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.step import train_step

# Compile fast, because each program runs once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def train_job(side="", network="lenet5", what="train", batch_size=16, dtype="float32", variant=""):
    return Job(side, variant, network, what, batch_size, dtype)


def turn(steps, seconds, peak_mib=100.0):
    return {"steps": steps, "seconds": seconds, "peak_mib": peak_mib}


@pytest.fixture
def comparison():
    """Return three rounds of one second, 10 images a step: ours 8, 6, 9 steps, linen 2, 3, 3."""

    def side(variant="", flops=None, compile_seconds=0.0):
        return {
            "variant": variant,
            "flops": flops,
            "compile_seconds": compile_seconds,
            "device": "cpu",
            "versions": {"jax": "1.2.3"},
        }

    return {
        "network": "lenet5",
        "what": "train",
        "batch_size": 10,
        "dtype": "float32",
        "image_size": None,
        "images_per_step": 10,
        "device": "a processor",
        "cpu_count": 2,
        "python": "3.11.7",
        "sides": {
            "jaxcnn": side(flops=10**9, compile_seconds=1.5),
            "linen": side(),
            "torch": side("eager")
            | {
                "versions": {"torch": "4.5.6"},
                "first_turns": {"eager": 2.0, "channels-last": 4.5},
            },
            "matmul": side(flops=4 * 10**9),
        },
        "left_out": {"torch compile": "no compiler [here]", "torch channels-last": "too old"},
        "rounds": [
            {
                "jaxcnn": turn(8, 1.0, 300.0),
                "linen": turn(2, 1.0),
                "torch": turn(16, 1.0),
                "matmul": turn(4, 1.0),
            },
            {
                "jaxcnn": turn(12, 2.0, 310.0),
                "linen": turn(6, 2.0),
                "torch": turn(6, 2.0),
                "matmul": turn(8, 2.0),
            },
            {
                "jaxcnn": turn(9, 1.0, 305.0),
                "linen": turn(3, 1.0),
                "torch": turn(9, 1.0),
                "matmul": turn(2, 1.0),
            },
        ],
    }


def test_figures_by_hand(comparison):
    found = figures(comparison)
    assert list(found) == ["jaxcnn", "linen", "torch"]
    ours, linen, torch = found.values()
    assert ours.images_per_second == 80 and ours.step_ms == 125  # the median of 8, 6 and 9 steps
    assert ours.ratios == (1, 1, 1)
    assert ours.gflops == 8  # 10^9 per step
    assert ours.of_matmul == 0.5  # 8/16, 6/16, 9/8
    assert ours.peak_mib == 310 and ours.compile_seconds == 1.5
    assert linen.images_per_second == 30 and linen.ratios == (3, 2, 4)
    assert linen.gflops == 3 and linen.of_matmul == 3 / 16  # 2/16, 3/16, 3/8
    assert torch.ratios == (1, 0.5, 2)


def test_print_comparison_shows_every_figure(comparison):
    console = Console(width=100, file=io.StringIO())
    print_comparison(comparison, console)
    text = console.file.getvalue()
    assert "lenet5, train, batch 10, float32" in text
    linen = next(line for line in text.splitlines() if line.strip().startswith("linen"))
    assert linen.split() == "linen 30.0 333 3.00x (2.00-4.00) 3.00 19% 100 0.0".split()
    ours = next(line for line in text.splitlines() if line.strip().startswith("jaxcnn"))
    assert ours.split() == "jaxcnn 80.0 125 8.00 50% 310 1.5".split()
    assert "torch eager" in text and "torch 4.5.6" in text
    assert "a processor, 2 cores" in text and "matrix products at 16.0 GFLOP/s" in text
    assert "Variants of torch in a first turn, images/s: eager 20.0, channels-last 45.0." in text
    assert "left out: torch compile (no compiler [here])\n" in text


@pytest.mark.parametrize(
    "network",
    ["lenet5", *(pytest.param(n, marks=pytest.mark.slow) for n in ("alexnet", "alexnet-2012"))],
)
def test_linen_side_computes_the_same_network(network):
    params, images = random_params(MODELS[network](), IMAGE_SHAPES[network]), normal_images(network)
    ours = jit(MODELS[network]().apply)({"params": params}, images)
    plain = linen_networks.NETWORKS[network]()
    shapes = jax.eval_shape(plain.init, jax.random.key(0), images)["params"]
    chex.assert_trees_all_equal_shapes_and_dtypes(params, shapes)
    logits = jit(plain.apply)({"params": params}, images)
    assert_close(logits, ours, 1e-4)
    has_our_convolution = [
        "= convolution[" in str(jax.make_jaxpr(model.apply)({"params": params}, images))
        for model in (MODELS[network](), plain)
    ]
    assert has_our_convolution == [True, False]


# First dense layer of a network -> height and width of the maps that it sees flattened.
FLATTENED = {
    **{"alexnet": ("fc6", 6), "alexnet-2012": ("fc6", 6)},
    **{"alexnet-32": ("fc6", 4), "cuda-convnet-18pct": ("fc10", 4)},
}


def torch_arrays(network, params):
    """Yield the arrays of a state_dict, in its order."""
    if network == "lenet5-1998":
        yield BITMAPS.reshape(10, 84)
    for layer in sorted(params, key=lambda name: int(re.sub(r"\D", "", name) or 99)):
        kernel, bias = params[layer].get("kernel"), params[layer]["bias"]
        if kernel is None:
            yield params[layer]["coefficient"][:, None, None]
            yield bias[:, None, None]
            continue
        if kernel.ndim == 3:  # one entry for each connection; the mask removes the others
            connected = np.concatenate(TABLE_I), np.repeat(np.arange(16), [*map(len, TABLE_I)])
            kernel = np.full((5, 5, 6, 16), 7, np.float32)
            kernel[:, :, *connected] = params[layer]["kernel"]
        first, side = FLATTENED.get(network, ("", 0))
        if layer == first:
            kernel = kernel.reshape(side, side, -1, kernel.shape[-1])
        weight = np.moveaxis(kernel, (-1, -2), (0, 1)).copy()
        yield weight.reshape(len(weight), -1) if layer == first else weight
        yield bias


def torch_network(torch, network, params):
    make, shape = torch_networks.NETWORKS[network]
    assert shape == IMAGE_SHAPES[network]
    theirs = make(torch).eval()
    arrays = map(torch.from_numpy, torch_arrays(network, params))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), arrays, strict=True)), assign=True)
    return theirs


def normal_images(network):
    # Response normalization within maps has constants for pixels up to 255.
    scale = 128 if network == "cuda-convnet-18pct" else 1
    shape = (2, *IMAGE_SHAPES[network])
    return scale * np.random.default_rng(1).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    "network",
    [
        *("lenet5-1998", "cuda-convnet-18pct"),
        *(
            pytest.param(network, marks=pytest.mark.slow)
            for network in ("lenet5", "alexnet-32", "alexnet", "alexnet-2012")
        ),
    ],
)
def test_torch_side_computes_the_same_network(network):
    torch = pytest.importorskip("torch")
    params, images = random_params(MODELS[network](), IMAGE_SHAPES[network]), normal_images(network)
    ours = jit(MODELS[network]().apply)({"params": params}, images)
    with torch.no_grad():
        logits = torch_network(torch, network, params)(torch.tensor(np.moveaxis(images, -1, 1)))
    assert_close(logits.numpy(), ours, 1e-4)


def test_torch_side_has_the_loss_of_1998():
    torch = pytest.importorskip("torch")
    model, labels = MODELS["lenet5-1998"](), np.array([3, 8])
    theirs = torch_network(torch, "lenet5-1998", random_params(model, (28, 28, 1)))
    outputs = np.float32([[-12, -9, -40, -11, -70, -30, -8, -50, -60, -20], [-90] * 10])
    loss = theirs.loss_fn(torch.tensor(outputs), torch.tensor(labels)).item()
    assert loss == pytest.approx(float(model.loss_fn(outputs, labels).mean()), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("network", linen_networks.NETWORKS)
def test_linen_side_trains(network, dtype):
    job = train_job("linen", network, dtype=dtype)
    model = linen_networks.NETWORKS[network](dtype=jnp.dtype(dtype))
    state = jax.eval_shape(functools.partial(jax_sides.initial_state, job, model))
    images, labels = random_images(2, IMAGE_SHAPES[network])
    batch = {"image": normalized(images), "label": labels}
    new, metrics = jax.eval_shape(train_step, state, batch, jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    assert metrics["loss"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("network", "what"),
    [
        *(("lenet5", "train"), ("lenet5", "infer")),
        pytest.param("lenet5", "epoch", marks=pytest.mark.slow),
        pytest.param("lenet5-1998", "train", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    "variant", ["eager", pytest.param("channels-last", marks=pytest.mark.slow)]
)
def test_torch_side_runs(what, variant, network, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch_side, "MNIST_SIZE", 40)
    monkeypatch.setattr(jobs, "MNIST_SIZE", 40)
    for dtype in ("float32", "bfloat16"):
        prepared = torch_side.prepare(Job("torch", variant, network, what, 16, dtype))
        prepared.run(2)
        assert prepared.versions == {"torch": torch.__version__}


def test_forward_passes_of_an_odd_batch_are_filled_up():
    jax_sides.prepare_jaxcnn(train_job(what="infer", batch_size=33)).run(1)  # on two devices
    with pytest.raises(UserError, match="`batch_size` is 33; expected a multiple of 2"):
        jax_sides.prepare_jaxcnn(train_job(batch_size=33))


def test_onnx_side_runs_forward_passes_alone():
    onnxruntime = pytest.importorskip("onnxruntime", reason="the side runs in onnxruntime")
    prepared = onnx_side.prepare(Job("onnxruntime", "", "lenet5-modern", "infer", 3, "float32"))
    prepared.run(2)
    assert prepared.versions == {"onnxruntime": onnxruntime.__version__}
    for job in (train_job(), train_job(what="infer", dtype="bfloat16")):
        with pytest.raises(UserError, match="forward passes in float32; use --what infer"):
            onnx_side.prepare(job)


@pytest.mark.slow
def test_epoch_is_that_of_the_training_script(monkeypatch, capsys):
    for module in (our_epochs, jax_sides, jobs):
        monkeypatch.setattr(module, "MNIST_SIZE", 40)
    monkeypatch.setitem(DATASETS, "random", None)
    monkeypatch.setattr(jax, "jit", jit)
    job = train_job(what="epoch")
    assert job.images_per_step == 32
    prepared = jax_sides.prepare_jaxcnn(job)
    prepared.run(2)
    said = capsys.readouterr().out
    assert "epoch 1: test accuracy" in said and "epoch 2: test accuracy" in said
    assert "epoch 3" not in said
    summary = summarize(MODELS["lenet5"](), (28, 28, 1))
    multiply_adds = (
        3 * summary.multiply_adds - 28 * 28 * 6 * 5 * 5
    )  # without the gradient of the images
    assert prepared.flops == 2 * multiply_adds * 32
    jax_sides.prepare_linen(job).run(1)
    for refused in (
        train_job(network="alexnet", what="epoch"),
        train_job(what="epoch", dtype="bfloat16"),
    ):
        with pytest.raises(
            UserError, match="expected a lenet5 network and float32 for `what` epoch"
        ):
            jax_sides.prepare_jaxcnn(refused)


def test_prepare_jaxcnn_stops_when_the_loss_is_not_finite(monkeypatch):
    monkeypatch.setattr(jax_sides, "LEARNING_RATE", float("nan"))
    monkeypatch.setattr(jax, "jit", jit)
    prepared = jax_sides.prepare_jaxcnn(train_job())
    prepared.run(2)
    with pytest.raises(RunError, match="the loss is not finite at step 2"):
        prepared.run(1)


class FakeWorker:
    """Steps per second by side and variant; None for a side that fails."""

    RATES = {
        **{("jaxcnn", ""): 6, ("linen", ""): 2, ("matmul", ""): 1},
        **{("torch", "eager"): 3, ("torch", "channels-last"): 4, ("torch", "compile"): None},
    }

    def __init__(self, job):
        self.key, self.stopped = (job.side, job.variant), False
        self.facts = {"variant": job.variant, "device": "a GPU", "flops": 1}
        self.log.append(f"start {job.side} {job.variant}".strip())

    def wait(self):
        if self.RATES[self.key] is None:
            raise RunError("no compiler")

    def measure(self, seconds):
        self.log.append(self.key[0])
        return turn(self.RATES[self.key], 1.0)

    def stop(self):
        if not self.stopped:
            self.log.append(f"stop {self.key[0]} {self.key[1]}".strip())
        self.stopped = True


def test_compare_takes_turns_with_the_fastest_torch(monkeypatch):
    monkeypatch.setattr(comparing, "MIN_CORES_TO_START_TOGETHER", 1000)
    monkeypatch.setattr(comparing, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "log", log := [], raising=False)
    found = compare(train_job(), ["torch", "linen"], rounds=2, seconds=1, say=lambda line: None)
    assert log[:13] == [
        *("start jaxcnn", "jaxcnn"),
        *("start torch eager", "torch", "start torch channels-last", "torch", "stop torch eager"),
        *("start torch compile", "stop torch compile"),
        *("start linen", "linen", "start matmul", "matmul"),
    ]
    assert log[13:21] == [
        *("jaxcnn", "torch", "linen", "matmul"),
        *("matmul", "linen", "torch", "jaxcnn"),
    ]
    assert sorted(log[21:]) == [
        *("stop jaxcnn", "stop linen", "stop matmul", "stop torch channels-last"),
    ]
    assert found["left_out"] == {"torch compile": "no compiler"}
    assert found["sides"]["torch"]["variant"] == "channels-last"
    assert found["sides"]["torch"]["first_turns"] == {"eager": 3, "channels-last": 4}
    assert [list(turns) for turns in found["rounds"]] == 2 * [
        ["jaxcnn", "torch", "linen", "matmul"]
    ]
    assert found["rounds"][1]["torch"]["steps"] == 4 and found["device"] == "a GPU"


def test_compare_starts_all_sides_at_once_on_many_cores(monkeypatch):
    monkeypatch.setattr(comparing, "Worker", FakeWorker)
    monkeypatch.setattr(comparing, "MIN_CORES_TO_START_TOGETHER", 1)
    monkeypatch.setattr(FakeWorker, "log", log := [], raising=False)
    found = compare(train_job(), ["torch"], rounds=1, seconds=1, say=lambda line: None)
    assert log[:11] == [
        *("start jaxcnn", "start torch eager", "start torch channels-last", "start torch compile"),
        *("start matmul", "stop torch compile", "jaxcnn", "torch", "torch", "stop torch eager"),
        "matmul",
    ]
    assert log[11:14] == ["jaxcnn", "torch", "matmul"]
    assert found["sides"]["torch"]["first_turns"] == {"eager": 3, "channels-last": 4}


def test_compare_raises_when_our_side_fails(monkeypatch):
    monkeypatch.setattr(comparing, "MIN_CORES_TO_START_TOGETHER", 1000)
    monkeypatch.setattr(comparing, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "log", log := [], raising=False)
    monkeypatch.setitem(FakeWorker.RATES, ("jaxcnn", ""), None)
    with pytest.raises(RunError, match="no compiler"):
        compare(train_job(), ["linen"], rounds=1, seconds=1, say=lambda line: None)
    assert log == ["start jaxcnn", "stop jaxcnn"]


def test_compare_says_that_torch_is_missing(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('No module named torch')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(FakeWorker, "log", [], raising=False)
    monkeypatch.setattr(
        comparing, "Worker", lambda job: (Worker if job.side == "torch" else FakeWorker)(job)
    )
    found = compare(train_job(), ["torch"], rounds=1, seconds=0.1, say=lambda line: None)
    reason = "PyTorch is not installed; run: pip install -e '.[torch]'"
    assert found["left_out"] == {f"torch {variant}": reason for variant in torch_side.VARIANTS}
    assert list(found["sides"]) == ["jaxcnn", "matmul"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ValueError('two\\nlines')", "ValueError: two"),
        (
            "import os, sys; sys.stderr.write('out of luck\\n'); os._exit(3)",
            "status 3: out of luck",
        ),
    ],
)
def test_worker_says_why_it_died(code, message, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    worker = Worker(train_job("torch-eager", variant="eager"))
    try:
        with pytest.raises(RunError, match=message):
            worker.wait()
    finally:
        worker.stop()


@pytest.mark.parametrize(("step_seconds", "steps"), [(0.01, 5), (0.1, 4), (0.7, 2)])
def test_worker_measures_as_many_steps_as_a_chunk_of_training(step_seconds, steps, monkeypatch):
    replies, wanted = io.StringIO(), 0.05
    monkeypatch.setattr(jax_sides, "prepare_jaxcnn", lambda _: jobs.Prepared(None, "", {}))
    monkeypatch.setattr(serving, "_seconds", lambda _, num_steps: num_steps * step_seconds)
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{wanted}\n"))
    serving._serve(train_job("jaxcnn"), replies)
    assert json.loads(replies.getvalue().splitlines()[1])["steps"] == steps


def benchmark(path, *flags):
    """Run a short benchmark of LeNet-5; return its JSON and its output."""
    flags = [*flags, "--rounds", 1, "--seconds", 0.1, "--against", "linen", "--json", path]
    done = run_script("benchmark.py", "lenet5", *flags)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return json.loads(path.read_text()), done.stdout


@pytest.mark.slow
def test_benchmark_from_the_command_to_the_json(tmp_path):
    (found,), said = benchmark(tmp_path / "out.json", "--batch-size", 16)
    assert found["network"] == "lenet5" and found["batch_size"] == found["images_per_step"] == 16
    assert list(found["sides"]) == ["jaxcnn", "linen", "matmul"] and found["left_out"] == {}
    assert found["sides"]["linen"]["versions"]["jax"] == jax.__version__
    (turns,) = found["rounds"]
    rates = {side: turns[side]["steps"] / turns[side]["seconds"] for side in turns}
    assert all(turns[side]["seconds"] >= 0.1 for side in turns)
    ratio = found["figures"]["linen"]["ratios"][0]
    assert ratio == pytest.approx(rates["jaxcnn"] / rates["linen"])
    ours = found["figures"]["jaxcnn"]
    assert 0 < ours["of_matmul"] < 1 and ours["compile_seconds"] > 0.1 and ours["peak_mib"] > 100
    assert f"{ratio:.2f}x" in said and "jaxcnn" in said


@pytest.mark.slow
def test_benchmark_draws_the_growth_over_batch_sizes(tmp_path):
    picture = tmp_path / "growth.png"
    flags = ["--batch-size", 16, 32, "--figure", picture]
    found, said = benchmark(tmp_path / "out.json", *flags)
    assert "Largest jump of the time of an image:" in said
    assert [one["batch_size"] for one in found] == [16, 32]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet6"], "no model is called 'lenet6'; did you mean lenet5"),
        (["lenet5", "--against", "torhc"], "no side is called 'torhc'; did you mean torch?"),
        (["lenet5", "--rounds", "0"], "--rounds is 0; expected a value in [1, 1,000]"),
        (
            ["lenet5", "--what", "startup", "--rounds", "0"],
            "--rounds is 0; expected a value in [1, 1,000]",
        ),
        (
            ["lenet5", "--what", "scale", "--batch-size", "12"],
            "--batch-size is 12; expected a multiple of 8 for --what scale",
        ),
        (
            ["lenet5", "--json", "nowhere/out.json"],
            "--json is 'nowhere/out.json'; create the folder 'nowhere' first",
        ),
        (["lenet5", "--against", ","], "no side is called ''; there are linen, onnxruntime, torch"),
        (["lenet5", "--seconds", "inf"], "--seconds is inf; expected a value in [0.001, 3,600]"),
        (["lenet5", "--batch-size"], "--batch-size is empty; expected one or several sizes"),
        (["lenet5", "--json", "."], "--json is '.', a folder; name a file to write"),
        (
            ["lenet5", "--what", "scale", "--figure", "out.png"],
            "--figure only applies to --what train, infer, epoch, and --wh",
        ),
        (
            ["lenet5", "--what", "scale", "--against", "linen"],
            "--against only applies to --what train, infer, ep",
        ),
        (
            ["lenet5", "--what", "startup", "--dtype", "bfloat16"],
            "--dtype only applies to --what train",
        ),
        (
            ["lenet5", "--what", "startup", "--batch-size", "8"],
            "--batch-size only applies to --what t",
        ),
        (["lenet5-mnist", "--what", "input", "--batch-size", "8"], "--batch-size only applies to"),
        (["lenet5-mnist", "--what", "input", "--image-size", "8"], "--image-size only applies to"),
        (
            ["lenet5", "--what", "startup", "--seconds", "5"],
            "--seconds only applies to --what train, ",
        ),
        (
            ["lenet5", "--what", "startup", "--figure", "a.png", "--against", "linen"],
            "--against only applies to --what train, infer, epoch, and --what is startup",
        ),
        (["lenet5", "--figure", "out.png"], "--figure requires several values of either"),
        (["lenet5", "--batch-size", "8", "16", "8"], "--batch-size is 8 16 8; expected different"),
        (["lenet5", "--dataset", "mnist"], "--dataset only applies to --what input, and"),
        (["lenet5-mnist", "--what", "input", "--dataset", "mnits"], "no dataset is called"),
        (["lenet5-mnits", "--what", "input"], "no preset is called 'lenet5-mnits'; did you"),
        (["lenet5-mnits", "--what", "accuracy"], "no preset is called 'lenet5-mnits'; did you"),
        (["lenet5", "--flags", "a"], "--flags only applies to --what notebook, accuracy"),
        (["--minutes", "3"], "--minutes is 3; expected a positive number, together with"),
        (["--report", "x.md", "--minutes", "0"], "--minutes is 0; expected a positive number"),
        (
            ["alexnet", "--report", "x.md"],
            "--report measures networks of its own; remove 'alexnet'",
        ),
        (["--report", "x.md", "--dtype", "bfloat16"], "--report measures with its own --dtype"),
        (["--report", "nowhere/x.md"], "--report is 'nowhere/x.md'; create the folder"),
    ],
)
def test_benchmark_refuses_a_request_in_one_line(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(SCRIPTS / "benchmark.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert exit.value.code == 2
    assert error.startswith(f"error: {message}") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["lenet5", "--rounds", "0"], 2)]
)
def test_benchmark_needs_no_jax_in_the_parent(arguments, status):
    done = run_script("benchmark.py", *arguments, python=["-X", "importtime"])
    assert done.returncode == status
    modules = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "tyro" in modules and not modules & {"jax", "torch"}


@pytest.mark.slow
def test_measure_input_compares_input_with_the_step(monkeypatch):
    models, begun = {*MODELS}, []
    begin_epoch = Experiment.begin_epoch

    def note(experiment, state):
        begun.append((experiment.config.model, int(state.step) % experiment.steps_per_epoch))
        return begin_epoch(experiment, state)

    monkeypatch.setattr(Experiment, "begin_epoch", note)
    found = measure_input(
        PRESETS["lenet5-mnist5k"].config, rounds=2, seconds=0.2, say=lambda line: None
    )
    training, alone = found["images_per_second"].values()
    assert len(training) == len(alone) == 2 and 0 < max(training) < min(alone)
    assert {*MODELS} == models
    assert {*begun} == {("lenet5-tanh", 0), ("mean-color", 0)}
    console = Console(width=100, file=io.StringIO())
    print_input(found, console)
    ratio = statistics.median(fast / slow for fast, slow in zip(alone, training, strict=True))
    assert f"input alone is {short(ratio)} times as fast" in console.file.getvalue()
    with pytest.raises(UserError, match="`rounds` is 0.*; expected at least 1"):
        measure_input(PRESETS["lenet5-mnist5k"].config, rounds=0, seconds=1, say=lambda line: None)


def test_measure_startup_waits_for_the_first_line_of_the_log(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import pathlib, sys, time\n"
        "if '--help' in sys.argv: sys.exit()\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--workdir') + 1])\n"
        "log = folder / 'metrics.jsonl'\n"
        "folder.mkdir(); log.touch(); time.sleep(0.5); log.write_text('{}\\n'); time.sleep(60)\n"
    )
    command = (sys.executable, str(script))
    found = measure_startup(command, "lenet5", rounds=2, say=lambda line: None)
    seconds = found["seconds"]
    assert all(0.5 <= taken < 10 for taken in seconds["first step"])
    assert len(seconds["--help"]) == 2 and max(seconds["--help"]) < 0.5
    console = Console(width=100, file=io.StringIO())
    print_startup(found, console)
    assert "--help" in console.file.getvalue() and "first step" in console.file.getvalue()

    script.write_text("raise SystemExit('no such network')")
    with pytest.raises(RunError, match="before its first step, with: no such network"):
        measure_startup((sys.executable, str(script)), "lenet5", rounds=1, say=lambda line: None)
