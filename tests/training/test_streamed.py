"""Runs whose images are decoded as the steps need them."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import chex
import jax
import numpy as np
import pytest
from helpers import CLASSES, Fragile, interrupted_at, open_folder, save_image
from PIL import Image

from jaxcnn import evaluate_run, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig, to_json
from jaxcnn.data import datasets
from jaxcnn.data.stream import evaluation_batches, training_batches
from jaxcnn.data.transforms import HorizontalFlip, PCAColor, RandomCrop
from jaxcnn.distributed import mesh
from jaxcnn.errors import UserError
from jaxcnn.training import train
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import read_metrics

# Trains in a process of its own, and dies after step 22, in the second epoch of 15 steps.
CHILD = """
import os, sys, time
import jax
jax.config.update("jax_num_cpu_devices", 2)
from jaxcnn.training import train
from jaxcnn.config import from_json
from jaxcnn.training.experiment import Experiment

step_of = Experiment.train

def train_or_die(experiment, state, metrics, stop):
    if int(state.step) == 22:
        checkpoints = os.path.join(experiment.config.workdir, "checkpoints")
        while not {"16", "20"} & set(os.listdir(checkpoints)):
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
    return step_of(experiment, state, metrics, stop)

Experiment.train = train_or_die
train.chunk_steps = lambda _: 1
train.train_and_evaluate(from_json(open(sys.argv[1]).read()))
"""
# Prints the megabytes that a process holds after each epoch of a stream.
EPOCHS = """
import sys
from jaxcnn.config import from_json
from jaxcnn.training.experiment import Experiment

experiment = Experiment(from_json(open(sys.argv[1]).read()))
state, metrics = experiment.state, experiment.no_metrics()
experiment.compile()
for epoch in range(experiment.config.epochs):
    state = experiment.begin_epoch(state)
    stop = (epoch + 1) * experiment.steps_per_epoch
    state, metrics = experiment.train(state, metrics, stop)
    experiment.evaluate(state)
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    print(int(line.split()[1]) / 1024)
experiment.close()
"""


def config_of(folder, workdir, **fields):
    return TrainConfig(
        **{
            "model": "lenet5-relu",
            "dataset": f"folder:{folder}",
            "stream_size": 32,
            "transforms": (RandomCrop(28), HorizontalFlip(), PCAColor()),
            "batch_size": 4,
            "epochs": 2,
            "eval_batch_size": 8,
            "log_every_steps": 5,
            "checkpoint_every_steps": 4,
            "workdir": str(workdir),
            **fields,
        }
    )


def final_params(config):
    experiment = Experiment(config)
    with Checkpoints(pathlib.Path(config.workdir) / "checkpoints") as checkpoints:
        state, _ = checkpoints.restore(experiment.state, experiment.total_steps)
    return jax.device_get(state.params)


@pytest.mark.slow
def test_streamed_run_killed_continues_to_the_same_bits(image_folder, tmp_path, capsys):
    whole = config_of(image_folder, tmp_path / "whole")
    result = train_and_evaluate(whole)
    assert result["steps"] == 30 and result["num_test_examples"] == 21

    killed = dataclasses.replace(whole, workdir=str(tmp_path / "killed"))
    (tmp_path / "config.json").write_text(to_json(killed))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "config.json")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert child.returncode == -signal.SIGKILL, child.stderr

    capsys.readouterr()
    again = train_and_evaluate(killed)
    resumed_at = int(capsys.readouterr().out.split("checkpoint of step ")[1].split(".")[0])
    assert resumed_at in (16, 20)
    assert again["test_loss"] == result["test_loss"]
    chex.assert_trees_all_equal(final_params(killed), final_params(whole))


@pytest.mark.slow
@pytest.mark.parametrize("interruptions", [(), pytest.param((9, 22), marks=pytest.mark.slow)])
def test_streamed_run_skips_steps_that_are_not_finite(
    interruptions, image_folder, tmp_path, monkeypatch
):
    path = image_folder / "train" / "eel" / "02.JPEG"
    Image.new("RGB", (40, 40), "white").save(path)
    rule = OptimizerConfig(name="diagonal-lm", learning_rate=0.01, accumulate=2)
    fields = {"stream_size": 28, "transforms": (), "on_nonfinite": "skip"}
    fields |= {"optimizer": rule, "ema_decay": 0.5, "checkpoint_every_steps": 7}
    config = config_of(image_folder, tmp_path / "whole", **fields)
    result = train_and_evaluate(config, model=Fragile())
    assert result["skipped_steps"] == 2 and result["steps"] == 30
    again = dataclasses.replace(config, workdir=str(tmp_path / "again"))
    for step in interruptions:
        with interrupted_at(step, monkeypatch):
            train_and_evaluate(again, model=Fragile())
    if interruptions:
        assert train_and_evaluate(again, model=Fragile())["skipped_steps"] == 2
        assert read_metrics(tmp_path / "again") == read_metrics(tmp_path / "whole")


def test_streamed_feed_equals_the_resident_feed(image_folder, tmp_path, monkeypatch):
    """With one order for both: the same batches, the same steps, the same metrics."""
    streamed = open_folder(image_folder)
    (train_batch,) = evaluation_batches(streamed.train_images, batch_size=60)
    (test_batch,) = evaluation_batches(streamed.test_images, batch_size=21)
    arrays = [batch[name] for batch in (train_batch, test_batch) for name in ("image", "label")]
    whole = datasets.Dataset("whole", *arrays, CLASSES)
    fields = {"stream_size": 28, "transforms": (HorizontalFlip(),), "batch_size": 6}
    config = config_of(image_folder, tmp_path, **fields, eval_training=True)
    in_memory, from_files = Experiment(config, dataset=whole), Experiment(config)
    (shuffled,) = training_batches(
        streamed.train_images, seed=config.seed, epoch=0, first=0, batch_size=60
    )
    rows = {image.tobytes(): row for row, image in enumerate(train_batch["image"])}
    order = np.array([rows[image.tobytes()] for image in shuffled["image"]], np.int32)
    monkeypatch.setattr(in_memory.feed, "order", lambda _: mesh.replicate(order, in_memory.mesh))
    results = []
    for experiment in (in_memory, from_files):
        state, metrics = experiment.train(experiment.state, experiment.no_metrics(), 4)
        state, metrics = experiment.train(state, metrics, 10)
        evaluations = [experiment.evaluate(state, split) for split in ("test", "train")]
        assert [evaluation["num_examples"] for evaluation in evaluations] == [21, 60]
        results.append((jax.device_get((state.params, metrics)), evaluations))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_streamed_run_does_not_count_skipped_test_images(image_folder, tmp_path):
    (image_folder / "val" / "dog" / "aa.jpg").write_bytes(b"no image")
    config = config_of(image_folder, tmp_path / "run", on_bad_image="skip", epochs=1)
    assert train_and_evaluate(config)["num_test_examples"] == 21
    (tmp_path / "run" / "result.json").unlink()  # as if killed before it was written
    assert train_and_evaluate(config)["num_test_examples"] == 21
    with pytest.raises(
        UserError, match="`image` is 21; expected the index of a test image, 0 to 20"
    ):
        evaluate_run(tmp_path / "run", image=21)
    evaluation = evaluate_run(tmp_path / "run")
    assert evaluation["num_test_examples"] == np.sum(evaluation["confusion"]) == 21


@pytest.mark.slow
def test_streamed_run_finds_its_images_from_another_directory(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(image_folder.parent)
    config = config_of(f"{image_folder.name}/", tmp_path / "run", epochs=1)
    assert train_and_evaluate(config)["dataset"] == f"folder:{image_folder}"
    monkeypatch.chdir(image_folder)
    assert evaluate_run(tmp_path / "run")["num_test_examples"] == 21
    same = config_of(f"../{image_folder.name}", tmp_path / "run", epochs=1)
    assert train_and_evaluate(same)["steps"] == 15
    path = tmp_path / "run" / "config.json"  # as it was when a run kept what it was given
    fields = {**json.loads(path.read_text()), "dataset": f"folder:../{image_folder.name}"}
    del fields["sha256"], fields["format"]
    path.write_text(json.dumps(fields))
    assert train_and_evaluate(same)["steps"] == 15


@pytest.mark.slow
def test_streamed_run_names_a_corrupt_image(image_folder, tmp_path):
    path = image_folder / "train" / "eel" / "02.JPEG"
    path.write_bytes(path.read_bytes()[:-400])  # its header is whole
    # PCAColor would meet it before the first step.
    config = config_of(image_folder, tmp_path / "run", transforms=(RandomCrop(28),))
    with pytest.raises(
        UserError, match="02.JPEG is a bad image: .*truncated.*`on_bad_image` to skip"
    ):
        train_and_evaluate(config)
    assert (tmp_path / "run" / "config.json").exists()
    result = train_and_evaluate(dataclasses.replace(config, on_bad_image="skip"))
    assert result["steps"] == 30


@pytest.mark.slow
def test_streamed_run_stops_its_threads_on_a_signal(image_folder, tmp_path, monkeypatch):
    config = config_of(image_folder, tmp_path / "run", epochs=50)
    save_checkpoint = train.save_checkpoint

    def save_and_signal(*args, **kwargs):
        save_checkpoint(*args, **kwargs)
        monkeypatch.setattr(train, "save_checkpoint", save_checkpoint)  # a second one would kill
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(train, "save_checkpoint", save_and_signal)
    with pytest.raises(train.Interrupted):
        train_and_evaluate(config)
    names = [thread.name for thread in threading.enumerate()]
    assert not any(name.startswith("grain-thread-prefetch") for name in names)


def test_streamed_feed_returns_the_first_images_of_an_epoch(tmp_path, image_folder):
    fields = {"stream_size": 28, "transforms": (), "batch_size": 6}
    experiment = Experiment(config_of(image_folder, tmp_path, **fields))
    feed, train_images = experiment.feed, experiment.dataset.train_images
    images = np.asarray(feed.first_images(1, 6))
    (first, *_) = training_batches(train_images, seed=0, epoch=1, first=0, batch_size=6)
    np.testing.assert_array_equal(images, first["image"])
    assert np.any(images != np.asarray(feed.first_images(0, 6)))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_streamed_run_does_not_grow_from_epoch_to_epoch(tmp_path):
    for i in range(440):
        path = tmp_path / "images" / ("train" if i < 400 else "val") / CLASSES[i % 3] / f"{i}.jpg"
        save_image(path, 400, 300, seed=i)
    fields = {"stream_size": 256, "transforms": (RandomCrop(28),), "batch_size": 100}
    config = config_of(tmp_path / "images", tmp_path / "run", **fields, epochs=16)
    (tmp_path / "config.json").write_text(to_json(config))
    command = [sys.executable, "-c", EPOCHS, tmp_path / "config.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    megabytes = [float(line) for line in done.stdout.split()]
    assert max(megabytes[8:]) < 1.15 * max(megabytes[2:8]), megabytes  # an epoch's images are 75 MB
