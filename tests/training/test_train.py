"""Runs as a whole: what they leave, how they go on, and what they refuse."""

import dataclasses
import errno
import fcntl
import shutil
import signal
import time

import chex
import jax
import numpy as np
import pytest
from helpers import Fragile, interrupted_at, start_script, with_a_white_image

from jaxcnn import PRESETS, train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig, to_json
from jaxcnn.data.datasets import DATASETS, Dataset
from jaxcnn.errors import RunError, UserError
from jaxcnn.training import train
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir import folder as workdir
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import read_metrics

STEPS_PER_EPOCH = 62  # 4,000 digits in batches of 64
PRESET = PRESETS["lenet5-mnist5k"].config
SHORT = dataclasses.replace(PRESET, epochs=2, checkpoint_every_steps=20)
FOUR_EPOCHS = dataclasses.replace(PRESET, epochs=4)


def start(*arguments):
    """Start training as a user does, on as many devices as this process has."""
    return start_script("train.py", *arguments, JAX_NUM_CPU_DEVICES="2")


def final_params(config, folder):
    experiment = Experiment(config)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        step = checkpoints.resolve_step(None)
        state, _ = checkpoints.restore(experiment.state, step)
    assert step == experiment.total_steps
    return jax.device_get(state.params)


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs that nothing disturbed: its config, folder and result."""
    folder = tmp_path_factory.mktemp("finished")
    config = dataclasses.replace(SHORT, workdir=str(folder))
    return config, folder, train_and_evaluate(config)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The final parameters and metrics of four epochs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train_and_evaluate(dataclasses.replace(FOUR_EPOCHS, workdir=str(folder)))
    return final_params(FOUR_EPOCHS, folder), read_metrics(folder)


@pytest.mark.parametrize(
    ("every_steps", "after_seconds", "saved"),
    [
        (7, 0, [7, 8, 14, 16, 21, 24]),
        (None, 60, [8, 16, 24]),
        (None, 0, [1, 5, 8, 10, 15, 16, 20, 24]),  # each chunk ends at a log line or an epoch
    ],
)
def test_train_saves_at_steps_or_after_a_minute(
    every_steps, after_seconds, saved, tmp_path, monkeypatch
):
    steps = []
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", after_seconds)
    monkeypatch.setattr(train, "save_checkpoint", lambda run, *_, **__: steps.append(run.step))
    monkeypatch.setattr(train, "chunk_steps", lambda _: 10**6)
    config = TrainConfig(
        **{"model": "linear", "dataset": "noise", "batch_size": 8, "epochs": 3},
        **{"log_every_steps": 5, "checkpoint_every_steps": every_steps, "workdir": str(tmp_path)},
    )
    train_and_evaluate(config, dataset=with_a_white_image())
    assert steps == saved


@pytest.mark.parametrize(
    ("streamed", "fields"),
    [
        (False, {"on_nonfinite": "skip"}),
        (False, {"debug_nans": True}),
        (True, {"val_fraction": 0.25}),
    ],
)
def test_train_reads_nothing_from_a_device_implicitly(
    streamed, fields, tmp_path, monkeypatch, image_folder
):
    def refuse(array, *_):
        raise AssertionError(f"an array {array.shape} is read without jax.device_get")

    for name in ("__bool__", "__int__", "__float__", "__index__", "item", "tolist"):
        monkeypatch.setattr(type(jax.numpy.zeros(1)), name, refuse)
    config = TrainConfig(
        **{"model": "linear", "dataset": "noise", "batch_size": 8, "epochs": 2},
        **{"log_every_steps": 2, "checkpoint_every_steps": 2, "workdir": str(tmp_path / "run")},
        **{"eval_training": True, **fields},
    )
    dataset = with_a_white_image()
    if streamed:
        dataset = None
        config = dataclasses.replace(config, dataset=f"folder:{image_folder}", stream_size=8)
    with interrupted_at(3, monkeypatch):
        train_and_evaluate(config, dataset=dataset)
    train_and_evaluate(config, dataset=dataset)


def test_train_writes_its_files_and_its_result(finished):
    config, folder, result = finished
    assert workdir.read_result(folder) == result
    assert workdir.read_config(folder) == config
    elsewhere = dataclasses.replace(config, data_dir="/data", manual_dir="/files")
    assert workdir.read_config(folder, data_dir="/data", manual_dir="/files") == elsewhere
    assert result["steps"] == 2 * STEPS_PER_EPOCH and result["num_test_examples"] == 1000
    assert 0.5 < result["test_accuracy"] <= 1 and result["test_loss"] > 0
    keys = "preset model dataset seed epochs train_seconds compile_seconds examples_per_second"
    assert result.keys() >= {*keys.split(), "total_seconds", "devices", "versions"}
    assert result["train_seconds"] + result["compile_seconds"] <= result["total_seconds"]
    rate = result["steps"] * config.batch_size / result["train_seconds"]
    assert result["examples_per_second"] == pytest.approx(rate, rel=0.01)
    lines = read_metrics(folder)
    assert [line["step"] for line in lines] == [100, 124]
    assert lines[-1]["test_accuracy"] == result["test_accuracy"]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_train_keeps_the_latest_two_and_the_best_checkpoints(finished):
    with Checkpoints(finished[1] / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [120, 124]
        assert checkpoints.resolve_step("best") == 124


def test_train_shows_a_finished_run_and_changes_nothing(finished, capsys):
    config, folder, result = finished

    def files():
        paths = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
        return {path: path.stat().st_mtime_ns for path in paths}

    before = files()
    assert train_and_evaluate(config) == result
    assert "finished" in capsys.readouterr().out
    assert files() == before and len(before) > 20


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the finished run whose result was lost: its config and folder."""
    config, folder, _ = finished
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "result.json").unlink()
    return dataclasses.replace(config, workdir=str(copy)), copy


def test_train_saves_its_result_whatever_else_was_lost(finished, unfinished, monkeypatch, caplog):
    config, folder = unfinished
    (folder / "metrics.jsonl").unlink()
    (folder / "config.json").unlink()  # the checkpoints have a copy

    def fails(*_):
        raise ValueError("a font is missing")

    monkeypatch.setattr(train, "save_curves", fails)
    result = train_and_evaluate(dataclasses.replace(config, seed=np.int64(0)))
    assert workdir.read_result(folder)["test_loss"] == result["test_loss"]
    assert result["test_loss"] == finished[2]["test_loss"]
    assert "metrics.jsonl has 0 lines up to step 124; expected 2 lines" in caplog.text
    assert "cannot draw" in caplog.text and "a font is missing" in caplog.text
    assert workdir.read_config(folder) == config


def test_train_refuses_checkpoints_of_another_seed_without_a_config(unfinished):
    config, folder = unfinished
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match="124 is of another run: seed is 0 there and 7 here"):
        train_and_evaluate(dataclasses.replace(config, seed=7))


def test_train_refuses_a_result_without_a_config(finished, tmp_path):
    shutil.copy(finished[1] / "result.json", tmp_path)
    with pytest.raises(UserError, match="holds a result.json but no config.json"):
        train_and_evaluate(dataclasses.replace(finished[0], workdir=str(tmp_path)))


def test_train_shows_a_finished_run_that_cannot_be_locked(finished, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fcntl, "flock", read_only)  # the suite may run as root, who writes anywhere
    assert train_and_evaluate(finished[0]) == finished[2]


def test_train_refuses_a_folder_of_another_config(finished):
    config = dataclasses.replace(
        finished[0], batch_size=32, optimizer=OptimizerConfig(learning_rate=0.5), data_dir="/x"
    )
    with pytest.raises(UserError) as error:
        train_and_evaluate(config)
    message = str(error.value)
    assert "batch_size is 64 there and 32 here" in message
    assert "optimizer.learning_rate is 0.002 there and 0.5 here" in message
    assert "data_dir" not in message and "epochs" not in message


def test_train_refuses_a_folder_in_use(tmp_path):
    config = dataclasses.replace(SHORT, workdir=str(tmp_path))
    with workdir.lock_run_folder(config), pytest.raises(UserError, match="another process"):
        train_and_evaluate(config)


@pytest.mark.slow
def test_train_gives_the_same_bits_in_any_chunks(finished, tmp_path, monkeypatch):
    config, folder, result = finished
    monkeypatch.setattr(train, "chunk_steps", lambda _: 1)
    again = train_and_evaluate(dataclasses.replace(config, workdir=str(tmp_path)))
    assert again["test_loss"] == result["test_loss"]
    assert read_metrics(tmp_path) == read_metrics(folder)
    chex.assert_trees_all_equal(final_params(config, tmp_path), final_params(config, folder))


@pytest.mark.slow
def test_train_depends_on_the_seed(finished, tmp_path):
    config = dataclasses.replace(finished[0], workdir=str(tmp_path), seed=1)
    assert train_and_evaluate(config)["test_loss"] != finished[2]["test_loss"]


def test_train_killed_continues_to_the_same_bits(undisturbed, tmp_path, capsys):
    process = start("--epochs", 4, "--workdir", tmp_path, "--checkpoint-every-steps", 10)
    wait_for(tmp_path / "checkpoints" / "70", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "result.json").exists()

    train_and_evaluate(
        dataclasses.replace(FOUR_EPOCHS, checkpoint_every_steps=10, workdir=str(tmp_path))
    )
    out = capsys.readouterr().out
    assert int(out.split("checkpoint of step ")[1].split(".")[0]) >= 70
    params, metrics = undisturbed
    chex.assert_trees_all_equal(final_params(FOUR_EPOCHS, tmp_path), params)
    assert read_metrics(tmp_path) == metrics


LONGER = dataclasses.replace(SHORT, epochs=4, continued_from=(2,))


@pytest.mark.slow
def test_train_continues_a_finished_run_as_if_it_had_been_longer(
    finished, undisturbed, tmp_path, capsys
):
    folder = shutil.copytree(finished[1], tmp_path / "copy")
    config = workdir.continued(dataclasses.replace(SHORT, epochs=4, workdir=str(folder)))
    assert config.continued_from == (2,)
    result = train_and_evaluate(config)
    assert "Going on from the checkpoint of step 124." in capsys.readouterr().out
    assert (result["epochs"], result["continued_from"]) == (4, [2])
    params, metrics = undisturbed
    chex.assert_trees_all_equal(final_params(FOUR_EPOCHS, folder), params)
    assert read_metrics(folder) == metrics
    # The same command again, and the command of a run of four epochs, only show it.
    for again in (workdir.continued(config), dataclasses.replace(config, continued_from=())):
        assert train_and_evaluate(again) == result
    with pytest.raises(UserError, match=r"epochs is 4 there and 2 here"):
        train_and_evaluate(dataclasses.replace(SHORT, workdir=str(folder)))


def test_train_refuses_to_continue_a_run_of_another_config(finished):
    config = dataclasses.replace(LONGER, seed=1, workdir=str(finished[1]))
    with pytest.raises(UserError, match="another config: seed is 0 there and 1 here"):
        train_and_evaluate(config)
    assert workdir.read_result(finished[1]) == finished[2]


@pytest.mark.slow
def test_train_killed_while_it_continues_a_run_resumes_to_the_same_bits(
    finished, undisturbed, tmp_path
):
    folder = shutil.copytree(finished[1], tmp_path / "copy")
    options = ["--epochs", 4, "--checkpoint-every-steps", 20, "--workdir", folder]
    process = start(*options, "--continue")
    wait_for(folder / "checkpoints" / "180", process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "result.json").exists()
    result = train_and_evaluate(dataclasses.replace(SHORT, epochs=4, workdir=str(folder)))
    assert result["continued_from"] == [2]
    params, metrics = undisturbed
    chex.assert_trees_all_equal(final_params(FOUR_EPOCHS, folder), params)
    assert read_metrics(folder) == metrics


@pytest.mark.slow
def test_train_continues_averages_accumulation_and_steps(tmp_path):
    optimizer = dataclasses.replace(
        PRESET.optimizer, accumulate=7, schedule="steps", rate_steps=((1, 0.5), (3, 0.1))
    )
    config = dataclasses.replace(
        SHORT, optimizer=optimizer, ema_decay=0.9, epochs=5, eval_every_epochs=1
    )
    whole = dataclasses.replace(config, workdir=str(tmp_path / "whole"))
    expected = train_and_evaluate(whole)
    for epochs in (1, 3, 5):
        part = dataclasses.replace(config, epochs=epochs, workdir=str(tmp_path / "parts"))
        result = train_and_evaluate(part if epochs == 1 else workdir.continued(part))
    assert result["continued_from"] == [1, 3]
    same = ("steps", "test_accuracy", "test_loss")
    assert [result[name] for name in same] == [expected[name] for name in same]
    assert read_metrics(tmp_path / "parts") == read_metrics(tmp_path / "whole")
    both = [Checkpoints(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    like = Experiment(whole).state
    best = [checkpoints.restore(like, "best")[0] for checkpoints in both]
    chex.assert_trees_all_equal(
        jax.device_get(best[0].opt_state), jax.device_get(best[1].opt_state)
    )
    for checkpoints in both:
        checkpoints.__exit__(None)


def stop(number, *arguments, folder):
    process = start("--workdir", folder, "--log-every-steps", 3, *arguments)
    wait_for(folder / "metrics.jsonl", process)
    process.send_signal(number)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 128 + number
    assert number.name in err and "start the same command again" in err and "Traceback" not in err
    with Checkpoints(folder / "checkpoints") as checkpoints:
        assert f"at step {checkpoints.resolve_step(None):,} of" in err


@pytest.mark.slow
def test_train_saves_a_checkpoint_on_ctrl_c(tmp_path):
    never = 10**6
    stop(
        signal.SIGINT,
        *("--epochs", never, "--eval-every-epochs", never, "--checkpoint-every-steps", never),
        folder=tmp_path,
    )


@pytest.mark.slow
def test_train_saves_a_checkpoint_on_sigterm_and_continues(undisturbed, tmp_path, capsys):
    stop(signal.SIGTERM, "--epochs", 4, folder=tmp_path)
    train_and_evaluate(dataclasses.replace(FOUR_EPOCHS, log_every_steps=3, workdir=str(tmp_path)))
    assert "Going on from the checkpoint" in capsys.readouterr().out
    chex.assert_trees_all_equal(final_params(FOUR_EPOCHS, tmp_path), undisturbed[0])
    steps = [line["step"] for line in read_metrics(tmp_path)]
    assert steps == sorted({*range(3, 248, 3), 124, 248})


EVERYTHING = {
    "optimizer": OptimizerConfig(name="diagonal-lm", learning_rate=0.01, accumulate=2),
    "ema_decay": 0.5,
}


@pytest.mark.parametrize(
    ("fields", "checkpoint_every_steps", "interruptions"),
    [
        pytest.param({}, 1, (4, 17), marks=pytest.mark.slow),
        pytest.param(EVERYTHING, 1, (4, 17), marks=pytest.mark.slow),
        pytest.param(EVERYTHING, 5, (13,), marks=pytest.mark.slow),
        ({}, 5, ()),
    ],
)
def test_train_skips_steps_that_are_not_finite_whenever_it_resumes(
    fields, checkpoint_every_steps, interruptions, tmp_path, monkeypatch
):
    config = TrainConfig(
        **{"dataset": "noise", "batch_size": 8, "epochs": 3, "log_every_steps": 3},
        **{"on_nonfinite": "skip", "checkpoint_every_steps": checkpoint_every_steps},
        workdir=str(tmp_path / "one"),
        **fields,
    )
    whole = {"dataset": with_a_white_image(), "model": Fragile()}
    result = train_and_evaluate(config, **whole)
    assert result["skipped_steps"] == 3 and result["steps"] == 24
    lines = read_metrics(tmp_path / "one")
    assert lines[-1]["skipped_steps"] == 3
    assert lines[-1]["learning_rate"] == pytest.approx(config.optimizer.learning_rate)
    again = dataclasses.replace(config, workdir=str(tmp_path / "two"))
    for step in interruptions:
        with interrupted_at(step, monkeypatch):
            train_and_evaluate(again, **whole)
    assert train_and_evaluate(again, **whole)["skipped_steps"] == 3
    assert read_metrics(tmp_path / "two") == lines


@pytest.mark.parametrize(
    ("checkpoint_every_steps", "what"),
    [pytest.param(1, "(the loss|a parameter)", marks=pytest.mark.slow), (1000, "the loss")],
)
def test_train_stops_when_values_are_not_finite(checkpoint_every_steps, what, tmp_path):
    optimizer = OptimizerConfig(name="sgd", learning_rate=1e4, momentum=0.0)
    config = dataclasses.replace(
        SHORT,
        model="lenet5-relu",
        optimizer=optimizer,
        checkpoint_every_steps=checkpoint_every_steps,
        workdir=str(tmp_path),
    )
    with pytest.raises(RunError, match=rf"{what} is not finite at step \d+; .*learning_rate"):
        train_and_evaluate(config)
    assert not (tmp_path / "result.json").exists()
    experiment = Experiment(config)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert bool(checkpoints.steps()) == (checkpoint_every_steps == 1)
        for step in checkpoints.steps():
            state, _ = checkpoints.restore(experiment.state, step)
            chex.assert_tree_all_finite(state.params)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"batch_size": 4002}, "at most 4,000, the images in the training set of mnist5k"),
        ({"batch_size": 63}, "is 63; expected a multiple of 2.* nearest is 64"),
        ({"epochs": -1}, "`epochs` is -1"),
        ({"model": "lenet"}, "no model is called 'lenet'; did you mean lenet5"),
        ({"dataset": "mnist5"}, "no dataset is called 'mnist5'; did you mean mnist5k"),
        ({"dataset": "folders:x"}, "there are mnist5k, mnist, .*, folder:DIR, tfds:NAME$"),
        ({"pixel_mean": (0.1, 0.2, 0.3)}, "mean has 3 values for images of 1 channels"),
    ],
)
def test_train_refuses_a_config_before_it_takes_the_folder(fields, message, tmp_path):
    config = dataclasses.replace(SHORT, workdir=str(tmp_path / "run"), **fields)
    with pytest.raises(UserError, match=message):
        train_and_evaluate(config)
    assert not (tmp_path / "run" / "config.json").exists()  # the folder stays free for another


def test_train_refuses_images_of_another_size(tmp_path, monkeypatch):
    images, labels = np.zeros((100, 32, 32, 3), np.uint8), np.zeros(100, np.int32)
    wide = Dataset("wide", images, labels, images, labels, tuple("ab"))
    monkeypatch.setitem(DATASETS, "wide", lambda data_dir, manual_dir: wide)
    config = dataclasses.replace(SHORT, dataset="wide", workdir=str(tmp_path))
    with pytest.raises(UserError, match=r"lenet5-tanh and dataset wide do not fit: .*28, 28"):
        train_and_evaluate(config)


@pytest.mark.parametrize("name", ["run [1]", "[x]", "back\\slash"])
def test_train_refuses_a_folder_that_orbax_cannot_read(name, tmp_path):
    config = dataclasses.replace(SHORT, workdir=str(tmp_path / name / "run"))
    with pytest.raises(UserError, match="^`workdir` is .* because Orbax cannot read checkpoints"):
        train_and_evaluate(config)
    assert not list(tmp_path.iterdir())


def test_lock_run_folder_refuses_a_name_that_is_not_utf8(tmp_path):
    config = dataclasses.replace(SHORT, workdir=f"{tmp_path}/a\udcff")
    with pytest.raises(UserError, match="^`workdir` is .*; expected a path in UTF-8"):
        with workdir.lock_run_folder(config):
            pass


@pytest.mark.parametrize("name", ["run[", "]run", "a*b?", "ü '\"$%{}#:,~&;|<>!^`=+@ b"])
def test_lock_run_folder_takes_other_names(name, tmp_path):
    config = dataclasses.replace(SHORT, workdir=str(tmp_path / name))
    with workdir.lock_run_folder(config) as folder:
        assert folder == tmp_path / name


def test_lock_run_folder_gives_up_a_run_without_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(to_json(SHORT))
    other = dataclasses.replace(SHORT, seed=5, workdir=str(tmp_path))
    with workdir.lock_run_folder(other):
        pass
    for lost in ("unreadable/5", "checkpoints/5"):
        (tmp_path / lost).mkdir(parents=True)
        with pytest.raises(UserError, match="holds a run of another config: seed is 0 there and 5"):
            with workdir.lock_run_folder(other):
                pass
        (tmp_path / lost).rmdir()
    (tmp_path / "checkpoints" / "5").mkdir()
    with pytest.raises(UserError, match="no model is called 'lenet'"):  # said before that
        train_and_evaluate(dataclasses.replace(other, model="lenet"))


def test_train_says_that_a_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    config = dataclasses.replace(SHORT, workdir=str(tmp_path / "file" / "run"))
    with pytest.raises(UserError, match="cannot write in .*; choose another `workdir`"):
        train_and_evaluate(config)
