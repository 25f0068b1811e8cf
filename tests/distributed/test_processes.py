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

import chex
import jax
import numpy as np
import pytest
import yaml
from PIL import Image

from jaxcnn import PRESETS
from jaxcnn.config import TrainConfig
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir import folder as workdir
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import read_metrics

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "train.py"
# Adam would enlarge what rounding leaves of a gradient.
OPTIONS = (
    "--optimizer.name sgd --optimizer.learning-rate 0.1 --optimizer.schedule constant "
    "--epochs 2 --log-every-steps 10 --checkpoint-every-steps 10"
).split()
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
TWO_MACHINES = pathlib.Path(__file__).with_name("two_machines.sh")
IN_NAMESPACES = "unshare --user --map-root-user --net --uts --mount".split()
two_machines = pytest.mark.skipif(
    not (shutil.which("ip") and shutil.which("unshare"))
    or subprocess.run(
        [*IN_NAMESPACES, *"ip link add left type veth peer name right".split()], capture_output=True
    ).returncode,
    reason="this machine allows no network namespaces",
)


def train_command(folder, *options):
    return [sys.executable, SCRIPT, "--workdir", folder, *OPTIONS, *options]


def cpu_devices(num_devices):
    return {**os.environ, "JAX_NUM_CPU_DEVICES": str(num_devices)}


def start(folder, num_processes, *options, devices=1, slurm=False):
    """The processes of a run, as a user starts them by hand, or as SLURM does."""
    environment, command = cpu_devices(devices), train_command(folder, *options)
    if num_processes == 1:
        return [subprocess.Popen(command, env=environment, **PIPES)]
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
        command += (
            f"--multihost --coordinator 127.0.0.1:{port} --num-processes {num_processes}".split()
        )
    return [
        subprocess.Popen(
            command if slurm else [*command, "--process-id", str(i)],
            env=environment | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)},
            **PIPES,
        )
        for i in range(num_processes)
    ]


def ends(processes, timeout=240):
    """What each process printed, its errors, and its exit status."""
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
    """The run in one process, on two devices."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (_, err, status), *_ = ends(start(folder, 1, devices=2))
    assert status == 0, err
    return folder


def assert_same_run(folder, expected):
    chex.assert_trees_all_close(read_metrics(folder), read_metrics(expected), rtol=1e-5)
    chex.assert_trees_all_close(final_params(folder), final_params(expected), rtol=1e-4, atol=1e-5)


def test_two_processes_train_as_one_does_and_the_first_reports(undisturbed, tmp_path):
    (out, err, status), (other_out, other_err, other_status) = ends(start(tmp_path, 2))
    assert status == other_status == 0, err + other_err
    assert "test accuracy" in out
    assert all(line.startswith("[Gloo]") for line in other_out.splitlines())  # XLA's own
    assert len(json.loads((tmp_path / "result.json").read_text())["devices"]) == 2
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == {".lock"}
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("victim", "num_processes_after"), [(0, 4), pytest.param(1, 1, marks=pytest.mark.slow)]
)
def test_one_is_killed_the_others_end_and_the_run_goes_on_with_more_or_fewer(
    victim, num_processes_after, undisturbed, tmp_path
):
    processes = start(tmp_path, 2)
    wait_for(tmp_path / "checkpoints" / "30", processes)
    processes[victim].kill()
    killed = time.monotonic()
    (_, err, status) = ends([processes[1 - victim]], timeout=60)[0]
    assert status != 0 and time.monotonic() - killed < 60
    assert "lost the others" in err or "another task died" in err  # ours, or JAX's own
    processes[victim].communicate()
    assert not (tmp_path / "result.json").exists()

    first, *others = ends(start(tmp_path, num_processes_after))
    assert {status for *_, status in (first, *others)} == {0}, first
    assert "Going on from the checkpoint of step" in first[0]
    assert_same_run(tmp_path, undisturbed)


def test_a_signal_to_one_stops_all_at_the_same_step(undisturbed, tmp_path):
    processes = start(tmp_path, 2, slurm=True)
    wait_for(tmp_path / "metrics.jsonl", processes)
    processes[1].send_signal(signal.SIGTERM)
    results = ends(processes, timeout=60)
    assert [status for *_, status in results] == [128 + signal.SIGTERM] * 2
    messages = {err[err.index("error: ") :] for _, err, _ in results}
    assert len(messages) == 1 and "stopped by SIGTERM at step" in messages.pop()

    first, *_ = ends(start(tmp_path, 2, slurm=True))
    assert "Going on from the checkpoint" in first[0]
    assert_same_run(tmp_path, undisturbed)


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
    (_, _, status), _ = ends(processes, timeout=60)
    assert status != 0
    first, second = ends(start(two, 2, *options))
    assert first[-1] == second[-1] == 0, first
    assert "Going on from the checkpoint of step 2" in first[0]
    assert json.loads((two / "result.json").read_text())["num_test_examples"] == 20
    assert_same_run(two, one)


def on_two_machines(folder, scratch):
    scratch.mkdir()
    settings = "--multihost --coordinator 10.0.0.1:7777 --num-processes 2".split()
    command = ["bash", TWO_MACHINES, scratch, *train_command(folder), *settings]
    return subprocess.Popen([*IN_NAMESPACES, *command], env=cpu_devices(1), **PIPES)


@pytest.mark.slow
@two_machines
def test_two_machines_train_as_one_process_does(undisturbed, tmp_path):
    (out, err, status), *_ = ends([on_two_machines(tmp_path / "run", tmp_path / "scratch")])
    assert status == 0, err
    assert out.count("test accuracy") >= 1 and err == ""
    assert_same_run(tmp_path / "run", undisturbed)


@pytest.mark.slow
@two_machines
def test_a_cut_cable_ends_both_machines_and_the_run_goes_on(undisturbed, tmp_path):
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


def test_processes_that_cannot_be_found_are_one_message(tmp_path):
    command = [sys.executable, SCRIPT, "--workdir", tmp_path, "--multihost"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert "--multihost finds no other processes" in process.stderr
    assert "--coordinator HOST:PORT" in process.stderr


def test_launch_recipes_call_what_there_is():
    recipes = SCRIPT.parent / "launch"
    scripts = {path.name: path for path in recipes.glob("*.sh")}
    assert scripts.keys() == {"slurm.sh", "tpu_slice.sh"}
    for script in scripts.values():
        subprocess.run(["bash", "-n", script], check=True)
        assert "scripts/train.py" in script.read_text()
    jobset = yaml.safe_load((recipes / "jobset.yaml").read_text())
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == job["completions"]
    _, script, preset, *flags = job["template"]["spec"]["containers"][0]["command"]
    assert (SCRIPT.parents[1] / script).exists() and preset in PRESETS
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {flag[2:].split("=")[0].replace("-", "_") for flag in flags} <= fields
