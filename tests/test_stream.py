"""Images that are decoded as the steps need them: which ones, in which order, and in whole runs."""

import dataclasses
import io
import logging
import os
import pathlib
import signal
import struct
import subprocess
import sys
import threading
from types import SimpleNamespace

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn import datasets, evaluate_run, mesh, sources, train, train_and_evaluate
from jaxcnn.checkpoint import Checkpoints
from jaxcnn.config import TrainConfig, to_json
from jaxcnn.decode import Images
from jaxcnn.errors import RunError, UserError
from jaxcnn.experiment import Experiment
from jaxcnn.sources import Encoded, open_source
from jaxcnn.stream import evaluation_batches, load, training_batches
from jaxcnn.transforms import HorizontalFlip, PCAColor, RandomCrop

CLASSES = ("cat", "dog", "eel")


def save_image(path, width, height, seed=0):
    """Smooth noise: pixels that shrink to something, and JPEG keeps."""
    small = np.random.default_rng(seed).integers(256, size=(6, 6, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def folder(tmp_path):
    """60 images to learn from and 21 to test on, PNG and JPEG, of 72x72 to 100x80 pixels."""
    for i in range(81):
        split, name = "train" if i < 60 else "val", CLASSES[i % 3]
        path = tmp_path / "images" / split / name / f"{i:02d}.{'png' if i % 2 else 'JPEG'}"
        save_image(path, 72 + i % 29, 72 + i % 9, seed=i)
    return tmp_path / "images"


def opened(folder, on_bad_image="refuse", **options):
    fields = {"size": 28, "min_size": 32, "on_bad_image": on_bad_image}
    return load(f"folder:{folder}", **{**fields, **options})


class Numbered:
    """Examples whose images are their own number, stored as PNG."""

    def __init__(self, count, bad=()):
        self._count, self._bad = count, bad

    def __len__(self):
        return self._count

    def __getitem__(self, row):
        file = io.BytesIO()
        Image.fromarray(np.full((4, 4), row % 256, np.uint8)).save(file, format="PNG")
        data = b"no image" if row in self._bad else file.getvalue()
        return Encoded(data, int(row) % 7, f"number {row}")


def numbered(count, bad=(), on_bad_image="skip"):
    examples = Numbered(count, bad)
    return Images(examples, size=2, channels=1, min_size=4, on_bad_image=on_bad_image)


def numbers(batch):
    assert (batch["image"] == batch["image"][:, :1, :1]).all()
    return batch["image"][:, 0, 0, 0].tolist()


def order_of(images, *, seed=0, epoch=0, first=0, batch_size=4, **options):
    batches = training_batches(
        images, seed=seed, epoch=epoch, first=first, batch_size=batch_size, **options
    )
    return [numbers(batch) for batch in batches]


def test_an_epoch_goes_once_through_the_images_in_whole_batches():
    order = order_of(numbered(23))
    assert [len(batch) for batch in order] == [4] * 5
    assert len({number for batch in order for number in batch}) == 20
    (batch,) = training_batches(numbered(9), seed=0, epoch=0, first=0, batch_size=9)
    assert sorted(numbers(batch)) == list(range(9))
    assert batch["label"].tolist() == [number % 7 for number in numbers(batch)]
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = {
        (seed, epoch): order_of(numbered(23), seed=seed, epoch=epoch)
        for seed in range(3)
        for epoch in range(3)
    }
    assert order_of(numbered(23), seed=2, epoch=1) == orders[2, 1]
    assert len({str(order) for order in orders.values()}) == 9


@pytest.mark.parametrize("first", [0, 1, 4])
def test_any_batch_can_be_the_first(first):
    assert order_of(numbered(23), first=first) == order_of(numbered(23))[first:]


@pytest.mark.parametrize("num_processes", [2, 4])
def test_the_shares_of_processes_make_the_batch_of_one(num_processes, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: num_processes)
    parts = []
    for index in range(num_processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        parts.append(order_of(numbered(23), share=mesh.process_share(4)))
    assert [sum(batch, []) for batch in zip(*parts, strict=True)] == order_of(numbered(23))


def test_evaluation_sees_each_image_once_in_order_and_masks_what_fills_up():
    batches = list(evaluation_batches(numbered(10), batch_size=4))
    assert sum((numbers(batch) for batch in batches), []) == [*range(10), 0, 0]
    masks = np.concatenate([batch["mask"] for batch in batches])
    assert masks.tolist() == [True] * 10 + [False] * 2


def test_a_bad_image_is_skipped_for_the_next_good_one_and_named(caplog):
    good, bad = numbered(23), numbered(23, bad=(5, 6, 22))
    instead = {5: 7, 6: 7, 22: 0}
    expected = [[instead.get(n, n) for n in batch] for batch in order_of(good, batch_size=23)]
    for _ in range(2):
        (order,) = order_of(bad, batch_size=23)
        assert [order] == expected
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3  # each once, though met twice
    assert all(sum(f"number {n} is a bad image" in m for m in messages) == 1 for n in instead)
    assert any("bad image number 3 of its split" in message for message in messages)
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_many_bad_images_are_not_all_named(caplog, monkeypatch):
    monkeypatch.setattr("jaxcnn.decode.MOST_WARNINGS", 2)
    order_of(numbered(1001, bad=range(1000)), batch_size=1001)
    ends = [record.getMessage().split("; ")[-1] for record in caplog.records]
    assert ends == [f"skipped, bad image number {n} of its split" for n in (1, 2, 1000)]


def test_evaluation_counts_bad_images_for_nothing():
    (batch,) = evaluation_batches(numbered(5, bad=(2,)), batch_size=8)
    assert batch["mask"].tolist() == [True, True, False, True, True, False, False, False]


def test_a_set_without_a_good_image_is_refused():
    with pytest.raises(UserError, match="no image that can be used"):
        order_of(numbered(4, bad=range(4)))


def test_a_bad_image_is_refused_by_name_when_it_is_met():
    images = numbered(8, bad=(5,), on_bad_image="refuse")
    for batches in (
        training_batches(images, seed=0, epoch=0, first=0, batch_size=4),
        evaluation_batches(images, batch_size=4),
    ):
        with pytest.raises(UserError, match="number 5 is a bad image.*--on-bad-image skip"):
            list(batches)


def test_an_image_is_the_centre_of_itself_scaled(tmp_path):
    save_image(tmp_path / "wide.png", 300, 200)
    save_image(tmp_path / "wide.jpg", 300, 200)
    with Image.open(tmp_path / "wide.png") as image:
        scaled = image.resize((96, 64), Image.Resampling.BILINEAR)
        expected = np.asarray(scaled)[:, 16:80].astype(int)
    for name in ("wide.png", "wide.jpg"):
        stored = [Encoded((tmp_path / name).read_bytes(), 0, name)]
        images = Images(stored, size=64, channels=3, min_size=1, on_bad_image="refuse")
        assert images.shape == (1, 64, 64, 3)
        difference = np.abs(images[0] - expected)
        assert difference.mean() < 2 and difference.max() < 16
    assert np.abs(np.roll(expected, 4, 1) - expected).mean() > 8  # that would have been seen


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_kind_become_colours_or_grey(mode, tmp_path):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    Image.new("RGB", (40, 40), (204, 204, 204)).convert(mode).save(path)
    stored = [Encoded(path.read_bytes(), 0, "image")]
    for channels in (1, 3):
        images = Images(stored, size=32, channels=channels, min_size=1, on_bad_image="refuse")
        assert images[0].shape == (32, 32, channels)
        assert mode == "1" or np.abs(images[0].astype(int) - 204).max() < 4


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_of_sixteen_bits_the_upper_eight_are_taken(suffix, tmp_path):
    path = tmp_path / f"image.{suffix}"
    pixels = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    Image.fromarray(pixels).save(path)
    stored = [Encoded(path.read_bytes(), 0, "image")]
    for channels in (1, 3):
        images = Images(stored, size=32, channels=channels, min_size=1, on_bad_image="refuse")
        expected = np.broadcast_to((pixels >> 8)[..., None], (32, 32, channels))
        np.testing.assert_array_equal(images[0], expected)


def test_of_twelve_bits_the_upper_eight_are_taken(tmp_path):
    Image.fromarray(np.full((32, 32), 0xFFFF, np.uint16)).save(tmp_path / "image.tif")
    content = (tmp_path / "image.tif").read_bytes()
    sixteen, twelve = (struct.pack("<HHIHH", 258, 3, 1, bits, 0) for bits in (16, 12))
    assert content.count(sixteen) == 1  # BitsPerSample
    stored = [Encoded(content.replace(sixteen, twelve), 0, "image")]
    images = Images(stored, size=32, channels=1, min_size=1, on_bad_image="refuse")
    assert np.all(images[0] == 255)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_unknown_range_make_a_bad_image(dtype, folder):
    path = folder / "train" / "cat" / "unknown.tif"
    Image.fromarray(np.ones((40, 40), dtype)).save(path)
    message = f"{path}.*the range of its pixels is not known"
    with pytest.raises(UserError, match=f"bad images, 1: {message}"):
        opened(folder)
    stored = [Encoded(path.read_bytes(), 0, str(path))]
    images = Images(stored, size=32, channels=1, min_size=1, on_bad_image="refuse")
    with pytest.raises(UserError, match=message):
        images[0]


def test_a_folder_is_its_classes_and_their_images(folder):
    (folder / "train" / "cat" / "notes.txt").touch()
    dataset = opened(folder)
    assert dataset.class_names == CLASSES
    assert dataset.train_images.shape == (60, 28, 28, 3)
    assert dataset.test_images.shape == (21, 28, 28, 3)
    source = open_source(f"folder:{folder}", None)
    assert [source.test[row].label for row in (0, 6, 7, 14, 20)] == [0, 0, 1, 2, 2]
    assert source.train[20].name == str(folder / "train" / "dog" / "01.png")
    assert dataset.sample().shape == (60, 28, 28, 3)
    np.testing.assert_array_equal(dataset.sample(), opened(folder).sample())


def test_val_goes_before_test_and_either_will_do(folder):
    save_image(folder / "test" / "dog" / "x.png", 40, 40)
    assert len(opened(folder).test_images) == 21
    (folder / "val").rename(folder / "else")
    assert len(opened(folder).test_images) == 1


def test_a_folder_laid_out_otherwise_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="no folder of images: it needs train/CLASS"):
        opened(tmp_path)
    (folder / "val" / "fox").mkdir()
    with pytest.raises(UserError, match="val has classes that .*train has not: fox"):
        opened(folder)
    (folder / "val").rename(tmp_path / "val")
    with pytest.raises(UserError, match="and has train"):
        opened(folder)
    (folder / "val" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="val has no images"):
        opened(folder)


def test_bad_headers_are_refused_before_training_all_at_once(folder):
    paths = [folder / "train" / "cat" / f"bad{i}.jpg" for i in range(4)]
    for path in paths:
        path.write_bytes(b"no image")
    small = folder / "val" / "dog" / "a.png"
    save_image(small, 100, 31)
    with pytest.raises(UserError, match="bad images, 5: .*bad0.jpg.* and 2 others; .*skip"):
        opened(folder)
    for path in paths:
        path.unlink()
    with pytest.raises(
        UserError, match="a.png: it has 100x31 pixels, fewer than the 32 of --stream"
    ):
        opened(folder)
    assert len(opened(folder, min_size=31).test_images) == 22
    assert len(opened(folder, "skip").test_images) == 22


def test_a_file_that_vanished_is_no_bad_image(folder):
    dataset = opened(folder, "skip")
    (folder / "val" / "cat" / "60.JPEG").unlink()
    with pytest.raises(RunError, match="cannot read .*60.JPEG: No such file"):
        list(evaluation_batches(dataset.test_images, batch_size=21))


def real_cifar10():
    data_dir = os.environ.get("TFDS_DATA_DIR")
    if not data_dir or not pathlib.Path(data_dir, "cifar10").is_dir():
        pytest.skip("needs the real cifar10 in TFDS_DATA_DIR")
    return datasets.load("cifar10")


def test_tfds_streamed_is_tfds_loaded():
    whole = real_cifar10()
    streamed = load("tfds:cifar10", size=32, min_size=32, on_bad_image="refuse")
    assert streamed.class_names == whole.class_names
    assert streamed.train_images.shape == whole.train_images.shape
    batch = next(iter(evaluation_batches(streamed.test_images, batch_size=200)))
    np.testing.assert_array_equal(batch["image"], whole.test_images[:200])
    np.testing.assert_array_equal(batch["label"], whole.test_labels[:200])
    for row in (0, 49_999):
        np.testing.assert_array_equal(streamed.train_images[row], whole.train_images[row])


def test_tfds_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(UserError, match="prepared no 'imagenet2012' in .*--data-dir"):
        load("tfds:imagenet2012", data_dir=tmp_path, size=8, min_size=1, on_bad_image="skip")
    for name in ("", "oxford-pets", "mnist:3.0"):  # no names of TFDS's
        with pytest.raises(UserError, match=f"prepared no '{name}' in .*TFDS_DATA_DIR names"):
            open_source(f"tfds:{name}", tmp_path)


@pytest.mark.parametrize(
    ("features", "splits", "message"),
    [
        ({"image": None}, ("train", "test"), "has image in train, test; it needs image and label"),
        ({"image": None, "label": None}, ("train",), "has image, label in train; it needs"),
        ({"image": None, "label": 1}, ("train", "test"), "has labels that are no classes: 1"),
    ],
)
def test_tfds_of_something_else_than_classes_is_refused(features, splits, message, monkeypatch):
    builder = SimpleNamespace(info=SimpleNamespace(features=features, splits=splits))
    name = "tensorflow_datasets.core.read_only_builder.builder_from_files"
    monkeypatch.setattr(name, lambda *_, **__: builder)
    monkeypatch.setattr("jaxcnn.tfds_builders.has_random_access", lambda _: True)
    with pytest.raises(UserError, match=f"^boxes {message}"):
        open_source("tfds:boxes", None)


def test_damaged_records_are_one_message(tmp_path, monkeypatch):
    class Cut:
        def __getitem__(self, row):
            raise RuntimeError("open() failed")

    with pytest.raises(RunError, match="^cannot read boxes train, image 3: open.. failed"):
        sources._Records(Cut(), "boxes train")[3]
    (tmp_path / "boxes" / "1.0.0").mkdir(parents=True)
    (tmp_path / "boxes" / "1.0.0" / "features.json").write_text("{}")
    (tmp_path / "boxes" / "1.0.0" / "dataset_info.json").write_text("{")
    for _ in range(2):
        with pytest.raises(UserError, match=f"boxes in {tmp_path} is damaged"):
            open_source("tfds:boxes", tmp_path)
        (tmp_path / "boxes" / "1.0.0" / "features.json").write_text("{")


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


# Trains in a process of its own, and dies after step 22, in the second epoch of 15 steps.
CHILD = """
import os, sys, time
import jax
jax.config.update("jax_num_cpu_devices", 2)
from jaxcnn import train
from jaxcnn.config import from_json
from jaxcnn.experiment import Experiment

step_of = Experiment.train

def train_or_die(experiment, state, metrics, stop):
    if int(state.step) == 22:
        checkpoints = os.path.join(experiment.config.workdir, "checkpoints")
        while not {"16", "20"} & set(os.listdir(checkpoints)):
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
    return step_of(experiment, state, metrics, stop)

Experiment.train = train_or_die
train.CHUNK_SECONDS = 0
train.train_and_evaluate(from_json(open(sys.argv[1]).read()))
"""


def test_killed_in_mid_epoch_it_goes_on_to_the_same_bits(folder, tmp_path, capsys):
    whole = config_of(folder, tmp_path / "whole")
    result = train_and_evaluate(whole)
    assert result["steps"] == 30 and result["num_test_examples"] == 21

    killed = dataclasses.replace(whole, workdir=str(tmp_path / "killed"))
    (tmp_path / "config.json").write_text(to_json(killed))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "config.json")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert child.returncode == -signal.SIGKILL, child.stderr

    capsys.readouterr()
    again = train_and_evaluate(killed)
    resumed_at = int(capsys.readouterr().out.split("checkpoint of step ")[1].split(".")[0])
    assert resumed_at in (16, 20)
    assert again["test_loss"] == result["test_loss"]
    chex.assert_trees_all_equal(final_params(killed), final_params(whole))


def test_a_stream_trains_and_evaluates_as_the_set_in_memory(folder, tmp_path, monkeypatch):
    """With one order for both: the same batches, the same steps, the same metrics."""
    streamed = opened(folder)
    (train_batch,) = evaluation_batches(streamed.train_images, batch_size=60)
    (test_batch,) = evaluation_batches(streamed.test_images, batch_size=21)
    arrays = [batch[name] for batch in (train_batch, test_batch) for name in ("image", "label")]
    monkeypatch.setitem(
        datasets.DATASETS, "whole", lambda *_: datasets.Dataset("whole", *arrays, CLASSES)
    )
    monkeypatch.setattr("jaxcnn.stream._order", lambda images, seed, epoch: order)
    fields = {"stream_size": 28, "transforms": (HorizontalFlip(),), "batch_size": 6}
    in_memory = Experiment(config_of(folder, tmp_path, **fields, dataset="whole"))
    order = np.asarray(in_memory._feed._order(0))
    from_files = Experiment(config_of(folder, tmp_path, **fields))
    results = []
    for experiment in (in_memory, from_files):
        state, metrics = experiment.train(experiment.state, experiment.no_metrics(), 4)
        state, metrics = experiment.train(state, metrics, 10)
        images, labels, by_class = experiment.predict(state)
        assert len(images) == len(labels) == 21
        evaluation = experiment.evaluate(state)
        results.append((jax.device_get((state.params, metrics)), by_class, evaluation, images[20]))
        np.testing.assert_array_equal(labels, test_batch["label"])
        assert (by_class.argmax(-1) == labels).mean() == pytest.approx(evaluation["accuracy"])
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)


def test_what_is_skipped_in_the_test_set_is_not_counted(folder, tmp_path):
    (folder / "val" / "dog" / "aa.jpg").write_bytes(b"no image")
    config = config_of(folder, tmp_path / "run", on_bad_image="skip", epochs=1)
    assert train_and_evaluate(config)["num_test_examples"] == 21
    (tmp_path / "run" / "result.json").unlink()  # as if killed before it was written
    assert train_and_evaluate(config)["num_test_examples"] == 21
    with pytest.raises(UserError, match="--image is 21: the test set has images 0 to 20"):
        evaluate_run(tmp_path / "run", image=21)
    evaluation = evaluate_run(tmp_path / "run")
    assert evaluation["num_test_examples"] == np.sum(evaluation["confusion"]) == 21


def test_a_run_finds_its_folder_of_images_from_elsewhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    config = config_of(f"{folder.name}/", tmp_path / "run", epochs=1)
    assert train_and_evaluate(config)["dataset"] == f"folder:{folder}"
    monkeypatch.chdir(folder)
    assert evaluate_run(tmp_path / "run")["num_test_examples"] == 21
    same = config_of(f"../{folder.name}", tmp_path / "run", epochs=1)
    assert train_and_evaluate(same)["steps"] == 15
    path = tmp_path / "run" / "config.json"  # as it was when a run kept what it was given
    path.write_text(path.read_text().replace(f"folder:{folder}", f"folder:../{folder.name}"))
    assert train_and_evaluate(same)["steps"] == 15


def test_hidden_files_and_folders_are_passed_over(folder):
    save_image(folder / "train" / ".checkpoints" / "a.png", 80, 80)
    (folder / "train" / "cat" / "._00.jpg").write_bytes(b"no image")
    dataset = opened(folder)
    assert dataset.class_names == CLASSES and len(dataset.train_images) == 60


def test_a_damaged_image_ends_the_run_in_one_line(folder, tmp_path):
    path = folder / "train" / "eel" / "02.JPEG"
    path.write_bytes(path.read_bytes()[:-400])  # its header is whole
    # PCAColor would meet it before the first step.
    config = config_of(folder, tmp_path / "run", transforms=(RandomCrop(28),))
    with pytest.raises(UserError, match="02.JPEG is a bad image: .*truncated.*--on-bad-image skip"):
        train_and_evaluate(config)
    assert (tmp_path / "run" / "config.json").exists()
    result = train_and_evaluate(dataclasses.replace(config, on_bad_image="skip"))
    assert result["steps"] == 30


def test_a_signal_stops_the_threads_that_read_ahead(folder, tmp_path, monkeypatch):
    config = config_of(folder, tmp_path / "run", epochs=50)
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


def test_the_curvature_is_of_the_epochs_first_images(tmp_path, folder):
    fields = {"stream_size": 28, "transforms": (), "batch_size": 6}
    feed = Experiment(config_of(folder, tmp_path, **fields))._feed
    images = np.asarray(feed.first_images(1, 6))
    np.testing.assert_array_equal(images, feed._batch(10)["image"])
    assert np.any(images != np.asarray(feed.first_images(0, 6)))


# Prints the megabytes that a process holds after each epoch of a stream.
EPOCHS = """
import sys
from jaxcnn.config import from_json
from jaxcnn.experiment import Experiment

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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path):
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
