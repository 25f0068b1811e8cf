"""Damaged files of a run: each is noticed or without effect, and says so in one line."""

import functools
import json
import random
import shutil

import jax
import numpy as np
import pytest
from helpers import Tiny, rounds

from jaxcnn import train_and_evaluate
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import RunError, UserError
from jaxcnn.training.experiment import Experiment
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.checkpoints import Checkpoints
from jaxcnn.workdir.metrics_log import MetricsLog

# Orbax's failing tasks warn when they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

COUNTS = [pytest.param(5, id="few"), pytest.param(500, id="many", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on noise: its experiment, its folder, its checkpoints by step."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(64, 4, 4, 1), dtype=np.uint8)
    labels = rng.integers(3, size=64, dtype=np.int32)
    dataset = Dataset("noise", images, labels, images, labels, tuple("abc"))
    folder = tmp_path_factory.mktemp("run")
    config = TrainConfig(
        dataset="noise",
        optimizer=OptimizerConfig(learning_rate=0.01),
        **{"batch_size": 16, "epochs": 3, "log_every_steps": 2, "checkpoint_every_steps": 5},
        workdir=str(folder),
    )
    train_and_evaluate(config, dataset=dataset, model=Tiny())
    experiment = Experiment(config, dataset=dataset, model=Tiny())
    with Checkpoints(folder / "checkpoints", config) as checkpoints:
        contents = {}
        for step in checkpoints.steps():
            state, progress = checkpoints.restore(experiment.state, step)
            contents[step] = (jax.device_get(jax.tree.leaves(state)), progress)
    assert len(contents) >= 2
    return experiment, folder, contents


def effect(run, damaged):
    """Return the step that a damaged copy of the run continues from, or the error.

    Fails if what is restored differs from what was saved.
    """
    experiment, _, contents = run
    try:
        with Checkpoints(damaged / "checkpoints", experiment.config) as checkpoints:
            state, progress = checkpoints.restore_latest(experiment.state)
    except (UserError, RunError) as error:
        assert "\n" not in str(error)
        return str(error)
    saved, saved_progress = contents[int(state.step)]
    assert progress == saved_progress
    for ours, theirs in zip(jax.device_get(jax.tree.leaves(state)), saved, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return int(state.step)


@pytest.fixture
def damaged(run, tmp_path):
    """Return a function that copies the run and changes the content of one of its files."""
    copies = iter(range(10**6))

    def damage(path, change):
        copy = tmp_path / str(next(copies))
        shutil.copytree(run[1], copy)
        target = copy / path
        content = change(target.read_bytes())
        if content is None:
            target.unlink()
        else:
            target.write_bytes(content)
        return copy

    return damage


def flip(content, rng):
    """Flip one bit."""
    content = bytearray(content)
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def files_of_latest(run):
    _, folder, contents = run
    latest = folder / "checkpoints" / str(max(contents))
    return sorted(path.relative_to(folder) for path in latest.rglob("*") if path.is_file())


@pytest.mark.slow
def test_each_file_of_a_checkpoint_lost_or_cut(run, damaged):
    changes = {
        "deleted": lambda content: None,
        "emptied": lambda content: b"",
        "halved": lambda content: content[: len(content) // 2],
        "zeroed": lambda content: bytes(len(content)),
    }
    for path in files_of_latest(run):
        for name, change in changes.items():
            copy = damaged(path, change)
            found = effect(run, copy)
            assert found in run[2], (path, name, found)  # an older one is sound
            shutil.rmtree(copy)


@pytest.mark.fuzz
@pytest.mark.parametrize("count", COUNTS)
def test_flipped_bits_of_a_checkpoint(count, run, damaged):
    rng = random.Random(0)
    files = files_of_latest(run)
    for i in rounds(count):
        path = files[i % len(files)]
        copy = damaged(path, functools.partial(flip, rng=rng))
        found = effect(run, copy)
        assert found in run[2], (i, path, found)
        shutil.rmtree(copy)


HOSTILE = (b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{" * 50_000, b"0", b'"a"', b"1" * 5000)
VALUES = (None, True, -1, 0, 1.5, 10**400, "x", [], {}, [[[]]], float("inf"), float("nan"))


def mutated_text(content, rng):
    """Change a file as bytes."""
    at = rng.randrange(len(content))
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    digit = rng.choice(digits)
    return rng.choice(
        [
            flip(content, rng),
            content[:at],
            content[:at] + content[at + rng.randrange(1, 9) :],
            content[:at] + bytes(len(content) - at),
            content[:digit] + str(rng.randrange(10)).encode() + content[digit + 1 :],
            rng.choice(HOSTILE),
        ]
    )


def mutated_record(content, rng):
    """Delete, rename or replace a field of a JSON object, at a random depth."""
    record = parent = json.loads(content)
    name = rng.choice(list(parent))
    while isinstance(parent[name], dict) and parent[name] and rng.random() < 0.7:
        parent = parent[name]
        name = rng.choice(list(parent))
    value = parent.pop(name)
    kind = rng.choice(["deleted", "renamed", "replaced"])
    if kind == "renamed":
        parent[rng.choice([f"{name}x", "x", ""])] = value
    elif kind == "replaced":
        parent[name] = rng.choice(VALUES)
    return json.dumps(record).encode()


def mutated(content, rng):
    """Change a file of JSON in one way."""
    return rng.choice([mutated_text, mutated_record])(content, rng)


def mutated_line(content, rng):
    """Change a file of JSON lines in one line, or lose one."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([b"", mutated(lines[at], rng), mutated(lines[at], rng) + b"\n"])
    return b"".join(lines)


@pytest.mark.fuzz
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_mutations_of_a_json_file(name, count, run, damaged):
    read = {"config.json": workdirs.read_config, "result.json": workdirs.read_result}[name]
    rng, expected = random.Random(1), read(run[1])
    noticed = 0
    for i in rounds(count):
        copy = damaged(name, functools.partial(mutated, rng=rng))
        try:
            found = read(copy)
            assert found == expected, (i, (copy / name).read_bytes())
        except UserError as error:
            assert name in str(error) and "\n" not in str(error)
            noticed += 1
        shutil.rmtree(copy)
    assert noticed > (i + 1) / 2


@pytest.mark.fuzz
@pytest.mark.parametrize("count", COUNTS)
def test_mutations_of_a_checkpoints_metadata(count, run, damaged):
    rng = random.Random(2)
    path = f"checkpoints/{max(run[2])}/metadata/metadata"
    for i in rounds(count):
        copy = damaged(path, functools.partial(mutated, rng=rng))
        found = effect(run, copy)
        assert found in run[2], (i, found, (copy / "unreadable").exists())
        shutil.rmtree(copy)


@pytest.mark.fuzz
@pytest.mark.parametrize("count", COUNTS)
def test_mutations_of_the_log(count, run, damaged, caplog):
    rng = random.Random(3)
    step = max(run[2])
    expected = run[2][step][1]["log"]
    before = (run[1] / "metrics.jsonl").read_bytes()
    for i in rounds(count):
        caplog.clear()
        copy = damaged("metrics.jsonl", functools.partial(mutated_line, rng=rng))
        MetricsLog(copy, step=step, expected=expected).close()
        same = (copy / "metrics.jsonl").read_bytes() == before
        assert same != ("lines were lost or changed" in caplog.text), i
        shutil.rmtree(copy)
