"""Save and restore states with Orbax; a restored state equals the saved one.

Orbax writes in the background and commits by renaming, so a killed process leaves the whole
checkpoint or none. Orbax does not notice a flipped bit in a stored array. A checksum of the state's
bits, stored with the state, does.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxcnn.distributed import processes
from jaxcnn.errors import RunError, UserError

FORMAT_VERSION = 1  # of what stands beside the state; raised when an older reader would misread it

State = TypeVar("State")

_log = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    # Orbax warns at each checkpoint without metrics: those between two evaluations have none.
    return "tracked_metric" not in record.getMessage()


logging.getLogger("absl").addFilter(_is_news)


class Checkpoints:
    """The checkpoints of a run: the latest two and the best by test accuracy."""

    def __init__(self, directory: Path) -> None:
        def accuracy(metrics: dict[str, float]) -> float:
            return metrics["test_accuracy"]

        self._directory = directory
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "metadata": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                # `best_step()` needs best_fn, whatever the policy (Orbax 0.12).
                best_fn=accuracy,
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [
                        checkpoint_managers.LatestN(2),
                        checkpoint_managers.BestN(
                            get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False
                        ),
                    ]
                ),
            ),
        )

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def resolve_step(self, step: int | Literal["best"] | None) -> int:
        """Return `step` if it has a checkpoint; None is the latest.

        "best" is the step with the best test accuracy among those evaluated, the latest of equals.

        Raises:
          UserError: there is no such checkpoint; the message lists those that exist.
        """
        steps = self.steps()
        if not steps:
            raise UserError(f"{self._directory} holds no checkpoint")
        if step is None:
            return steps[-1]
        if step == "best":
            best = self._manager.best_step()
            if best is None:
                raise UserError(f"{self._directory} holds no checkpoint that was evaluated")
            return best
        if step not in steps:
            raise UserError(
                f"{self._directory} holds no checkpoint of step {step}; there are "
                f"{', '.join(map(str, steps))}"
            )
        return step

    def save(
        self, state: Any, metadata: dict[str, Any], *, test_accuracy: float | None = None
    ) -> None:
        """Start saving `state` under its step; return when `state` may be donated.

        Args:
          state: tree of arrays with a `step`.
          metadata: dict of JSON types.
          test_accuracy: test accuracy of this state, if it was evaluated.

        Raises:
          RunError: the checkpoint, or an earlier one, cannot be written.
        """
        try:
            self._manager.save(
                int(state.step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    metadata=ocp.args.JsonSave(
                        {
                            "format_version": FORMAT_VERSION,
                            "checksum": int(_checksum(state)),
                            **metadata,
                        }
                    ),
                ),
                metrics=None if test_accuracy is None else {"test_accuracy": test_accuracy},
            )
        except Exception as error:  # a full disk surfaces as many types, as damage does
            raise self._cannot_write(error) from error

    def wait(self) -> None:
        """Wait until everything that `save` started is on disk.

        Raises:
          RunError: it cannot be written.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._cannot_write(error) from error

    def restore(self, state: State, step: int) -> tuple[State, dict[str, Any]]:
        """Return the state and the metadata saved at `step`.

        Args:
          state: state of the same structure, shapes, types and placement; its values are not used.
          step: one of `steps()`.

        Raises:
          UserError: the checkpoint is of another model or a newer format.
          DamagedCheckpoint: the checkpoint differs from what was saved, or cannot be read.
          RunError: the state does not fit into memory.
        """
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        where = self._directory / str(step)
        try:
            metadata = self._manager.restore(
                step, args=ocp.args.Composite(metadata=ocp.args.JsonRestore())
            ).metadata
            if metadata["format_version"] > FORMAT_VERSION:
                raise UserError(
                    f"{where} has format {metadata['format_version']}, this jaxcnn reads "
                    f"up to {FORMAT_VERSION}: update jaxcnn"
                )
            stored = self._manager.item_metadata(step).state.tree
            _check_same_tree(abstract, stored, where)
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            ).state
        except UserError:
            raise
        except Exception as error:  # damage surfaces as many types, from JSON's to TensorStore's
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError(f"no memory to read {where} into: {_first_line(error)}") from error
            raise DamagedCheckpoint(f"{where} cannot be read: {_first_line(error)}") from error
        if int(_checksum(restored)) != metadata["checksum"]:
            raise DamagedCheckpoint(f"{where} is damaged: its checksum differs from the saved one")
        return restored, metadata

    def restore_latest(self, state: State) -> tuple[State, dict[str, Any]] | None:
        """Return the newest sound checkpoint, or None if there is no checkpoint.

        Newer checkpoints that cannot be read are moved into `unreadable/` beside the checkpoints,
        with a warning; the run writes those steps again.

        Raises:
          UserError: the checkpoint is of another model or a newer format.
          RunError: all checkpoints are corrupt, or one does not fit into memory.
        """
        steps = self.steps()
        for step in reversed(steps):
            restored = None
            try:
                restored = self.restore(state, step)
            except DamagedCheckpoint as error:
                _log.warning("%s; trying the one before", error)
            if processes.any_process(restored is None):  # all must restore the same step
                continue
            self._set_aside([s for s in steps if s > step])
            return restored
        if steps:
            raise RunError(
                f"all checkpoints in {self._directory} are damaged; to start the run again, "
                f"move its folder away"
            )
        return None

    def _set_aside(self, steps: Sequence[int]) -> None:
        # Not deleted: what kept them from being read may have been the file system, for a moment.
        aside = self._directory.with_name("unreadable")
        for step in steps if processes.is_process_0() else ():
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)  # of an earlier time
            (self._directory / str(step)).rename(aside / str(step))
        if steps:
            processes.barrier()
            self._manager.reload()

    def _cannot_write(self, error: Exception) -> RunError:
        return RunError(f"cannot write a checkpoint in {self._directory}: {_first_line(error)}")


class DamagedCheckpoint(RunError):
    """A checkpoint that differs from what was saved, or cannot be read."""


@jax.jit
def _checksum(tree: Any) -> jax.Array:
    """Return a sum, modulo 2^32, of all words of a tree, each times an odd number from its place.

    It is computed on the device, for any placement. A single changed word always changes the sum.
    """
    total = jnp.uint32(0)
    for leaf in jax.tree.leaves(tree):
        words = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}")
        words = words.astype(jnp.uint32).ravel()
        places = jnp.arange(words.size, dtype=jnp.uint32)
        total = total * 31 + jnp.sum(words * (2 * places + 1), dtype=jnp.uint32)
    return total


def _check_same_tree(expected: Any, stored: Any, where: Path) -> None:
    ours, theirs = _shapes(expected), _shapes(stored)
    for name in ours.keys() | theirs.keys():
        if ours.get(name) != theirs.get(name):
            raise UserError(
                f"{where} is of another model: {name} is {theirs.get(name, 'absent')} there, "
                f"{ours.get(name, 'absent')} here"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
