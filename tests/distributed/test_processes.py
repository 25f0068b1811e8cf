"""Several processes on this machine: one run, whatever becomes of one of them."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import chex
import jax
import numpy as np
import pytest
import yaml
from helpers import (
    SCRIPTS,
    Fragile,
    run_script,
    script_command,
    start_script,
    with_a_white_image,
)
from PIL import Image

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig, to_json
from jaxcnn.distributed import processes
from jaxcnn.errors import UserError
from jaxcnn.interop.pretrained import load_pretrained
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir import folder as workdir
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import read_metrics

# Adam would enlarge what rounding leaves of a gradient.
OPTIONS = (
    "--optimizer.name sgd --optimizer.learning-rate 0.1 --optimizer.schedule constant "
    "--epochs 2 --log-every-steps 10 --checkpoint-every-steps 10"
).split()
CONFIG = dataclasses.replace(
    PRESETS["lenet5-mnist5k"].config,
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1),
    epochs=2,
    log_every_steps=10,
    checkpoint_every_steps=10,
)  # the same as a config
TWO_MACHINES = pathlib.Path(__file__).with_name("two_machines.sh")
IN_NAMESPACES = "unshare --user --map-root-user --net --uts --mount".split()
two_machines = pytest.mark.skipif(
    not (shutil.which("ip") and shutil.which("unshare"))
    or subprocess.run(
        [*IN_NAMESPACES, *"ip link add left type veth peer name right".split()], capture_output=True
    ).returncode,
    reason="this machine allows no network namespaces",
)


def start(folder, num_processes, *options, devices=1, slurm=False):
    """Start the processes of a run, as a user starts them by hand, or as SLURM does."""
    environment = {"JAX_NUM_CPU_DEVICES": str(devices)}
    options = ["--workdir", folder, *OPTIONS, *options]
    if num_processes == 1:
        return [start_script("train.py", *options, **environment)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if slurm:
        environment |= {
            "SLURM_JOB_ID": str(port),
            "SLURM_STEP_NODELIST": "127.0.0.1",
            "SLURM_NTASKS": str(num_processes),
        }
    else:
        options += (
            f"--multihost --coordinator 127.0.0.1:{port} --num-processes {num_processes}".split()
        )
    return [
        start_script(
            "train.py",
            *(options if slurm else [*options, "--process-id", i]),
            **environment,
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
        )
        for i in range(num_processes)
    ]


def ends(processes, timeout=240):
    """Return the output, the errors and the exit status of each process."""
    return [(*p.communicate(timeout=timeout), p.returncode) for p in processes]


def wait_for(path, processes):
    while not path.exists():
        assert {process.poll() for process in processes} == {None}
        time.sleep(0.01)


def final_params(folder):
    experiment = Experiment(workdir.read_config(folder))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state, _ = checkpoints.restore(experiment.state, experiment.total_steps)
    return jax.device_get(state.params)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of the run in one process, this one, on two devices."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train_and_evaluate(dataclasses.replace(CONFIG, workdir=str(folder)))
    return folder


def assert_same_run(folder, expected):
    assert workdir.read_config(folder) == dataclasses.replace(
        workdir.read_config(expected), workdir=str(folder)
    )
    chex.assert_trees_all_close(read_metrics(folder), read_metrics(expected), rtol=1e-5)
    chex.assert_trees_all_close(final_params(folder), final_params(expected), rtol=1e-4, atol=1e-5)


def assert_process_0_reports(folder, process_0, others):
    out, err, _ = process_0
    assert "test accuracy" in out, err
    for other_out, _, _ in others:
        assert all(line.startswith("[Gloo]") for line in other_out.splitlines())  # XLA's own
    assert len(json.loads((folder / "result.json").read_text())["devices"]) == 2
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".lock"}


@pytest.mark.slow
def test_processes_stop_at_the_same_step_on_a_signal_to_one(tmp_path):
    processes = start(tmp_path, 2, slurm=True)
    wait_for(tmp_path / "metrics.jsonl", processes)
    processes[1].send_signal(signal.SIGTERM)
    results = ends(processes)
    assert [status for *_, status in results] == [128 + signal.SIGTERM] * 2
    messages = {err[err.index("error: ") :] for _, err, _ in results}
    assert len(messages) == 1 and "stopped by SIGTERM at step" in messages.pop()


@pytest.mark.slow
def test_processes_continue_after_a_signal_to_one(undisturbed, tmp_path):
    test_processes_stop_at_the_same_step_on_a_signal_to_one(tmp_path)
    first, *others = ends(start(tmp_path, 2, slurm=True))
    assert {status for *_, status in (first, *others)} == {0}, first
    assert "Going on from the checkpoint" in first[0]
    assert_process_0_reports(tmp_path, first, others)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_processes_train_as_one_does(undisturbed, tmp_path):
    first, *others = ends(start(tmp_path, 2))
    assert {status for *_, status in (first, *others)} == {0}, first
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert_process_0_reports(tmp_path, first, others)
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.slow
def test_processes_fine_tune_as_one_does_and_continue(tmp_path):
    options = "--model lenet5 --init-from lenet5-mnist --freeze C1 C3 --new-head".split()
    one, two = tmp_path / "one", tmp_path / "two"
    for lengths in (("--epochs", 2), ("--epochs", 3, "--continue")):
        (_, err, status), *_ = ends(start(one, 1, *options, *lengths, devices=2))
        assert status == 0, err
        both = ends(start(two, 2, *options, *lengths))
        assert {status for *_, status in both} == {0}, both
    assert json.loads((two / "result.json").read_text())["continued_from"] == [2]
    assert_same_run(two, one)
    source = load_pretrained("lenet5-mnist").params
    for layer in ("C1", "C3"):
        chex.assert_trees_all_equal(final_params(two)[layer], source[layer])


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "num_processes_after"), [(0, 4), (1, 1)])
def test_processes_end_when_one_is_killed_and_the_run_continues(
    victim, num_processes_after, undisturbed, tmp_path
):
    processes = start(tmp_path, 2)
    wait_for(tmp_path / "checkpoints" / "30", processes)
    processes[victim].kill()
    # The limit is less than JAX's own heartbeat of 100 s, on a slow machine, too.
    (_, err, status) = ends([processes[1 - victim]], timeout=90)[0]
    assert status != 0
    assert "lost the others" in err or "another task died" in err  # ours, or JAX's own
    processes[victim].communicate()
    assert not (tmp_path / "result.json").exists()

    first, *others = ends(start(tmp_path, num_processes_after))
    assert {status for *_, status in (first, *others)} == {0}, first
    assert "Going on from the checkpoint of step" in first[0]
    assert_same_run(tmp_path, undisturbed)


# Trains a network that fails on one image, in one of two processes; its arguments are the address,
# the number of the process and its config.
SKIPPING = """
import sys
from helpers import Fragile, with_a_white_image
from jaxcnn import train_and_evaluate
from jaxcnn.config import from_json
from jaxcnn.distributed import processes

address, process_id, config = sys.argv[1:]
with processes.initialize(True, address, 2, int(process_id)):
    train_and_evaluate(from_json(config), dataset=with_a_white_image(), model=Fragile())
"""


@pytest.mark.slow
def test_processes_skip_the_same_steps_that_are_not_finite(tmp_path):
    rule = OptimizerConfig(name="diagonal-lm", learning_rate=0.01, accumulate=2)
    fields = {"dataset": "noise", "batch_size": 8, "epochs": 3, "log_every_steps": 3}
    fields |= {"on_nonfinite": "skip", "ema_decay": 0.5, "optimizer": rule}
    one, two = tmp_path / "one", tmp_path / "two"
    config = TrainConfig(**fields, workdir=str(one))
    result = train_and_evaluate(config, dataset=with_a_white_image(), model=Fragile())
    assert result["skipped_steps"] == 3
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    text = to_json(dataclasses.replace(config, workdir=str(two)))
    environment = {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    results = ends(
        [
            subprocess.Popen(
                [sys.executable, "-c", SKIPPING, address, str(i), text],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | environment,
            )
            for i in range(2)
        ]
    )
    assert {status for *_, status in results} == {0}, results
    assert json.loads((two / "result.json").read_text())["skipped_steps"] == 3
    chex.assert_trees_all_close(read_metrics(two), read_metrics(one), rtol=1e-5)


@pytest.mark.slow
def test_processes_decode_their_shares_of_a_stream(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(105):
        path = tmp_path / "images" / ("train" if i < 84 else "test") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(256, size=(28, 28, 3), dtype=np.uint8)).save(path)
    (tmp_path / "images" / "train" / "a" / "10.png").write_bytes(b"no image")
    (tmp_path / "images" / "test" / "a" / "90.png").write_bytes(b"no image")
    options = f"--dataset folder:{tmp_path / 'images'} --stream-size 28 --stream-min-size 28"
    options = f"{options} --on-bad-image skip --batch-size 4 --checkpoint-every-steps 5".split()
    one, two = tmp_path / "one", tmp_path / "two"
    (_, err, status), *_ = ends(start(one, 1, *options, devices=2))
    assert status == 0, err

    processes = start(two, 2, *options)
    wait_for(two / "checkpoints" / "25", processes)  # in the second epoch of 21 steps
    processes[1].kill()
    (_, _, status), _ = ends(processes, timeout=90)
    assert status != 0
    first, second = ends(start(two, 2, *options))
    assert first[-1] == second[-1] == 0, first
    assert "Going on from the checkpoint of step 2" in first[0]
    assert json.loads((two / "result.json").read_text())["num_test_examples"] == 20
    assert_same_run(two, one)


def on_two_machines(folder, scratch):
    scratch.mkdir()
    settings = "--multihost --coordinator 10.0.0.1:7777 --num-processes 2".split()
    train = script_command("train.py", "--workdir", folder, *OPTIONS, *settings)
    return subprocess.Popen(
        [*IN_NAMESPACES, "bash", TWO_MACHINES, scratch, *train],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@two_machines
def test_processes_on_two_machines_train_as_one_does(undisturbed, tmp_path):
    (out, err, status), *_ = ends([on_two_machines(tmp_path / "run", tmp_path / "scratch")])
    assert status == 0, err
    assert out.count("test accuracy") >= 1 and err == ""
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@two_machines
def test_processes_end_when_the_cable_is_cut_and_the_run_continues(undisturbed, tmp_path):
    folder, scratch = tmp_path / "run", tmp_path / "scratch"
    machines = on_two_machines(folder, scratch)
    wait_for(folder / "checkpoints" / "30", [machines])
    (scratch / "cut").touch()
    (_, err, status), *_ = ends([machines], timeout=120)
    assert status != 0 and "another task died" in err
    assert not (folder / "result.json").exists()
    (out, err, status), *_ = ends([on_two_machines(folder, tmp_path / "again")])
    assert status == 0, err
    assert "Going on from the checkpoint of step" in out
    assert_same_run(folder, undisturbed)


def test_initialize_says_how_to_find_the_other_processes(tmp_path):
    process = run_script("train.py", "--workdir", tmp_path, "--multihost")
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert "no other processes of the run were found" in process.stderr
    assert "--coordinator HOST:PORT" in process.stderr


def start_alone(folder, process_id, **environment):
    options = "--multihost --num-processes 2 --process-id".split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options += [process_id, "--coordinator", address, "--workdir", folder / "run"]
    return start_script("train.py", *options, **environment)


@pytest.mark.slow
@pytest.mark.parametrize("process_id", [0, 1])
def test_initialize_waits_no_longer_than_asked_for_the_other_processes(process_id, tmp_path):
    [(_, err, status)] = ends([start_alone(tmp_path, process_id, JAXCNN_JOIN_SECONDS="3")], 60)
    assert status == 1 and err.count("\n") == 1
    assert err.startswith(
        "error: this process waited 3 s for the other processes of the run at 127"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_initialize_ends_on_a_signal_while_it_waits(number, tmp_path):
    process = start_alone(tmp_path, 1)
    while len(list(pathlib.Path(f"/proc/{process.pid}/task").iterdir())) < 5:  # those of JAX
        time.sleep(0.01)
    time.sleep(2)
    process.send_signal(number)
    [(_, err, status)] = ends([process], timeout=20)
    assert status == 128 + number and err.count("\n") == 1, err


LOST = "UNKNOWN: Gloo AllGather failed: [pair.cc:547] Connection closed by peer"


@pytest.mark.parametrize("error", [ValueError(LOST), jax.errors.JaxRuntimeError(LOST)])
def test_initialize_ends_in_one_line_when_the_others_are_lost(error, monkeypatch, capfd):
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as end, processes.initialize(True, None, None, None):
        raise error
    err = capfd.readouterr().err
    assert end.value.code == 1 and err.count("\n") == 1
    assert err.startswith(
        f"error: process 0 of 1 lost the others ({LOST}); start all of them again"
    )


@pytest.mark.parametrize("seconds", ["", "0", "x", "1.5", "9" * 400])
def test_initialize_refuses_a_time_to_wait_that_is_none(seconds, monkeypatch):
    monkeypatch.setenv("JAXCNN_JOIN_SECONDS", seconds)
    with (
        pytest.raises(UserError, match="^JAXCNN_JOIN_SECONDS is .*; expected whole seconds from 1"),
        processes.initialize(True, "127.0.0.1:1", 2, 1),
    ):
        pass


def test_initialize_refuses_malformed_settings_of_slurm(monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NODELIST", "node[1-2]")
    monkeypatch.setenv("SLURM_NTASKS", "2x")
    with (
        pytest.raises(UserError, match="^SLURM_NTASKS is '2x'; expected a whole number"),
        processes.initialize(False, None, None, None),
    ):
        pass


@pytest.mark.parametrize("error", [RuntimeError("no chip (set JAX_PLATFORMS=)"), AssertionError()])
def test_initialize_refuses_a_platform_without_devices(error, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", mock.Mock(side_effect=error))
    cause = "no chip" if str(error) else "AssertionError"
    message = f"^JAX_PLATFORMS is 'cuda', and JAX finds no such device; .* The cause: {cause}$"
    with pytest.raises(UserError, match=message), processes.initialize(False, None, None, None):
        pass


def test_launch_recipes_name_scripts_and_flags_that_exist():
    recipes = SCRIPTS / "launch"
    scripts = {path.name: path for path in recipes.glob("*.sh")}
    assert scripts.keys() == {"slurm.sh", "study_array.sh", "tpu_slice.sh"}
    for name, script in scripts.items():
        subprocess.run(["bash", "-n", script], check=True)
        assert f"scripts/{'study' if 'study' in name else 'train'}.py" in script.read_text()
    jobset = yaml.safe_load((recipes / "jobset.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"]
    _, script, preset, *flags = job["template"]["spec"]["containers"][0]["command"]
    assert (SCRIPTS.parent / script).exists() and preset in PRESETS
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {flag[2:].split("=")[0].replace("-", "_") for flag in flags} <= fields
