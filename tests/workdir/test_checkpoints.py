"""A restored state is the saved one, or an error that says what is wrong."""

import gc
import logging
import resource

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import struct

from jaxcnn.distributed import mesh
from jaxcnn.errors import RunError, UserError
from jaxcnn.workdir.checkpoints import FORMAT_VERSION, Checkpoints, DamagedCheckpoint


@struct.dataclass
class State:
    step: jax.Array
    params: dict


def state_at(step, **more):
    # Incompressible, so that a flipped bit in its file is a flipped bit in an array.
    weights = np.random.default_rng(step).integers(0, 2**32, 10_000, np.uint32)
    params = {"kernel": jnp.asarray(weights.view(np.int32)), "bias": jnp.ones(3), **more}
    return State(step=jnp.int32(step), params=params)


def saved(directory, *steps):
    with Checkpoints(directory) as checkpoints:
        for step in steps:
            checkpoints.save(state_at(step), {"note": step})
            checkpoints.wait()


def largest_file(directory):
    return max(directory.rglob("*/d/*"), key=lambda path: path.stat().st_size)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_restore_latest_returns_what_was_saved(tmp_path):
    saved(tmp_path, 1, 2)
    with Checkpoints(tmp_path) as checkpoints:
        state, metadata = checkpoints.restore_latest(state_at(0))
        chex.assert_trees_all_equal(state, state_at(2))
        assert metadata["note"] == 2 and metadata["format_version"] == FORMAT_VERSION


def test_restore_latest_returns_none_without_a_checkpoint(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(state_at(0)) is None
        with pytest.raises(UserError, match="holds no checkpoint"):
            checkpoints.resolve_step(None)
        checkpoints.save(state_at(1), {})
        with pytest.raises(UserError, match="no checkpoint that was evaluated"):
            checkpoints.resolve_step("best")


def test_save_keeps_the_latest_two_and_the_best(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in enumerate([0.5, 0.9, None, 0.7, None]):
            checkpoints.save(state_at(step), {}, test_accuracy=accuracy)
            checkpoints.wait()
        assert checkpoints.steps() == [1, 3, 4]
        assert checkpoints.resolve_step("best") == 1
        assert checkpoints.resolve_step(None) == 4 and checkpoints.resolve_step(1) == 1
        with pytest.raises(UserError, match="step 2; there are 1, 3, 4"):
            checkpoints.resolve_step(2)


def test_restore_latest_skips_a_checkpoint_with_a_flipped_bit(tmp_path, caplog):
    directory = tmp_path / "checkpoints"
    saved(directory, 1, 2)
    flip_a_bit(largest_file(directory / "2"))
    with Checkpoints(directory) as checkpoints, caplog.at_level(logging.WARNING):
        with pytest.raises(DamagedCheckpoint):
            checkpoints.restore(state_at(0), 2)
        state, _ = checkpoints.restore_latest(state_at(0))
        chex.assert_trees_all_equal(state, state_at(1))
        assert checkpoints.steps() == [1]
        checkpoints.save(state_at(2), {})
    with Checkpoints(directory) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(state_at(0), 2)[0], state_at(2))
    assert "2" in caplog.text and "damaged" in caplog.text


def test_restore_latest_keeps_a_checkpoint_it_may_not_read(tmp_path, monkeypatch):
    directory = tmp_path / "checkpoints"
    saved(directory, 1, 2)
    restore = ocp.CheckpointManager.restore

    def no_access_to_2(manager, step, *args, **kwargs):
        if step == 2:
            raise PermissionError(13, "Permission denied")
        return restore(manager, step, *args, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", no_access_to_2)
    with Checkpoints(directory) as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore_latest(state_at(0))[0], state_at(1))
    monkeypatch.undo()
    with Checkpoints(tmp_path / "unreadable") as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(state_at(0), 2)[0], state_at(2))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory, 3 GiB")],
    ids=["host", "device"],
)
def test_restore_latest_says_that_there_is_no_memory(error, tmp_path, monkeypatch):
    directory = tmp_path / "checkpoints"
    saved(directory, 1, 2)

    def no_memory(*_, **__):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", no_memory)
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(RunError, match="^no memory to read .*checkpoints/2 into: .*"):
            checkpoints.restore_latest(state_at(0))
        assert checkpoints.steps() == [1, 2]


@pytest.fixture
def broken_tasks():
    """Collects what Orbax's failed tasks leave, so that it warns in the test that broke them."""
    yield
    gc.collect()


def breaks_tasks(test):
    """Marks a test in which tasks and threads of Orbax's fail, and nobody awaits their errors."""
    test = pytest.mark.usefixtures("broken_tasks")(test)
    for warning in ("PytestUnraisableExceptionWarning", "PytestUnhandledThreadExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::pytest.{warning}")(test)
    return test


@breaks_tasks
def test_save_says_what_cannot_be_written(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(RunError, match=r"^cannot write a checkpoint in .*checkpoints: .+$"):
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # as if the disk were full
            try:
                checkpoints.save(state_at(1), {})
                checkpoints.wait()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == []


def test_restore_latest_deletes_nothing_when_all_are_damaged(tmp_path):
    saved(tmp_path, 1, 2)
    for step in "12":
        flip_a_bit(largest_file(tmp_path / step))
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match="all checkpoints .* are damaged"):
            checkpoints.restore_latest(state_at(0))
        assert checkpoints.steps() == [1, 2]


@pytest.mark.parametrize(
    "missing", ["state/manifest.ocdbt", "metadata/metadata", "state/_METADATA"]
)
@breaks_tasks
def test_restore_notices_a_missing_file(missing, tmp_path):
    saved(tmp_path, 1)
    (tmp_path / "1" / missing).unlink()
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(DamagedCheckpoint):
        checkpoints.restore(state_at(0), 1)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"bias": jnp.ones(4)}, r"another model: params.bias is \(3,\) there, \(4,\) here"),
        ({"scale": jnp.ones(2)}, r"params.scale is absent there, \(2,\) here"),
    ],
)
def test_restore_refuses_another_model(other, message, tmp_path):
    saved(tmp_path, 1)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore(state_at(0, **other), 1)


def test_restore_refuses_a_newer_format(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxcnn.workdir.checkpoints.FORMAT_VERSION", FORMAT_VERSION + 1)
    saved(tmp_path, 1)
    monkeypatch.undo()
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="update jaxcnn"):
        checkpoints.restore_latest(state_at(0))


def test_restore_moves_a_state_between_one_and_two_devices(tmp_path):
    both = mesh.device_mesh()
    assert both.size == 2
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(mesh.replicate(state_at(1), both), {})
        checkpoints.wait()
        one, _ = checkpoints.restore(state_at(0), 1)
        two, _ = checkpoints.restore(mesh.replicate(state_at(0), both), 1)
    assert len(one.params["kernel"].devices()) == 1 and len(two.params["kernel"].devices()) == 2
    chex.assert_trees_all_equal(jax.device_get(one), jax.device_get(two), state_at(1))
