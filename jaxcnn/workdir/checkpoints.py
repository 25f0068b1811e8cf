"""Save and restore states with Orbax; a restored state equals the saved one.

Orbax writes in the background and commits by renaming, so a killed process leaves the whole
checkpoint or none. The files are flushed to the disk before the renaming, so the same holds for a
power cut. Orbax does not notice a flipped bit in a stored array. A checksum of the state's bits
does; it is stored in the metadata, which has a digest of its own.
"""

from __future__ import annotations

import concurrent.futures
import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import orbax.checkpoint as ocp
import tensorstore

from jaxcnn import config as configs
from jaxcnn import records
from jaxcnn.config import TrainConfig
from jaxcnn.distributed import processes
from jaxcnn.errors import RunError, UserError
from jaxcnn.files import sync, sync_tree
from jaxcnn.workdir import stored_state
from jaxcnn.workdir.metadata import (
    FORMAT_VERSION,
    DamagedCheckpoint,
    ForeignCheckpoint,
    Metadata,
    Progress,
    first_line,
    read_metadata,
)

NUM_LATEST = 2  # kept besides the best
SPACE_OF_METADATA = 2**16  # bytes of a checkpoint besides its arrays
DELETED = ".deleted"  # extension of the folder of a checkpoint while it is deleted
STEP = re.compile("0|[1-9][0-9]{0,9}")  # name of a checkpoint's folder
UNFINISHED = "*.orbax-checkpoint-tmp*"  # the folder of a checkpoint while it is written

State = TypeVar("State")

_log = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    # Orbax logs the traceback of a failed write in each of its threads; `wait` raises it.
    return not (record.exc_info and f"{os.sep}orbax{os.sep}" in record.pathname)


logging.getLogger("absl").addFilter(_is_news)

# TensorStore 0.1.86, the newest, never frees the list that this returns: 0.04 MiB for each
# checkpoint of Orbax 0.12.4, less with 0.12.8, which logs with it how fast it writes. A test fails
# when TensorStore frees the list; remove this line then.
tensorstore.experimental_collect_matching_metrics = lambda *_, **__: []


class Checkpoints:
    """The checkpoints of a run: the latest two and the best.

    The best has the highest validation accuracy, or test accuracy in a run without a validation
    split.

    Nothing is written before the first `save` or `restore_latest`, so a run can be read on a
    read-only disk and while it trains.
    """

    def __init__(self, directory: Path, config: TrainConfig | None = None) -> None:
        """Open the checkpoints in a folder, which need not exist.

        Args:
          directory: folder of the checkpoints.
          config: config of the run, to which all its checkpoints must belong; None skips the check.
        """
        self._directory = directory.absolute()
        self._config = config
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.StandardCheckpointHandler(), metadata=ocp.JsonCheckpointHandler()
            ),
            async_options=ocp.options.AsyncOptions(post_finalization_callback=self._sync_files),
        )
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: concurrent.futures.Future[Any] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
        except RunError as error:
            if kind is None:
                raise
            _log.debug("%s", error)  # the exception on its way is the reason, or says as much
        finally:
            self._thread.shutdown()
            self._checkpointer.close()

    def steps(self) -> list[int]:
        """Return the steps that have a checkpoint with readable metadata, in order."""
        return sorted(self._readable()[0])

    def resolve_step(self, step: int | Literal["best"] | None) -> int:
        """Return `step` if it has a checkpoint; None is the latest.

        "best" is the step with the best validation accuracy, the first of equals; in a run without
        a validation split, the one with the best test accuracy, the latest of equals.

        Raises:
          UserError: there is no such checkpoint; the message lists those that exist.
        """
        return self._candidates(step)[0]

    def save(
        self,
        state: Any,
        progress: Progress,
        *,
        test_accuracy: float | None = None,
        val_accuracy: float | None = None,
    ) -> None:
        """Start saving `state` under its step; return when `state` may be donated.

        Args:
          state: tree of arrays with a `step`.
          progress: progress of the run, returned by `restore`.
          test_accuracy: test accuracy of this state, if it was evaluated on the test set.
          val_accuracy: its validation accuracy, if it was evaluated on a validation split.

        Raises:
          RunError: the checkpoint, or an earlier one, cannot be written.
        """
        self.wait()
        step = int(jax.device_get(state.step))
        state, checksum = stored_state.snapshot(state)

        def start() -> None:
            metadata: Metadata = {
                "format_version": FORMAT_VERSION,
                "checksum": int(jax.device_get(checksum)),
                "config": None if self._config is None else configs.to_dict(self._config),
                "test_accuracy": test_accuracy,
                "progress": progress,
            }
            if val_accuracy is not None:
                metadata["val_accuracy"] = val_accuracy
            self._checkpointer.save(
                self._directory / str(step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    metadata=ocp.args.JsonSave(records.sealed(records.plain(metadata))),
                ),
            )

        # Orbax starts about 20 threads for a checkpoint, and training need not wait for them.
        in_background = [start, self._commit]
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._check_space(state)
            if jax.process_count() > 1:  # Orbax's barriers must not mix with those of training
                in_background.remove(start)
                start()
        except Exception as error:
            raise self._cannot_write(error) from error
        self._pending = self._thread.submit(lambda: [part() for part in in_background])

    def wait(self) -> None:
        """Wait until everything that `save` started is on disk, and what is not kept is deleted.

        Raises:
          RunError: it cannot be written.
        """
        pending, self._pending = self._pending, None
        try:
            if pending is not None:
                pending.result()
        except Exception as error:  # a full disk surfaces as many types, as damage does
            raise self._cannot_write(error) from error

    def restore(self, state: State, step: int | Literal["best"] | None) -> tuple[State, Progress]:
        """Return the state and the progress saved at a step; change nothing on disk.

        With "best" or None, a checkpoint that is corrupt, or deleted by a run that is training, is
        skipped for the next one.

        Args:
          state: state of the same structure, shapes, types and placement; its values are not used.
          step: the step, "best" or None, as in `resolve_step`.

        Raises:
          UserError: there is no such checkpoint, or it is of another run or a newer format.
          DamagedCheckpoint: the checkpoint differs from what was saved, or cannot be read.
          RunError: the state does not fit into memory.
        """
        while True:
            candidates, errors = self._candidates(step), []
            for candidate in candidates:
                try:
                    return self._restore(state, candidate)
                except (DamagedCheckpoint, ForeignCheckpoint) as error:
                    errors.append(error)
                    if candidate != candidates[-1]:
                        _log.warning("%s; trying the next", error)
            if self._candidates(step) == candidates:
                raise errors[0]

    def restore_latest(self, state: State) -> tuple[State, Progress] | None:
        """Return the newest sound checkpoint, or None if there is no checkpoint.

        Those that cannot be read, or belong to another run, are moved into `unreadable/` beside the
        checkpoints, with a warning; the run writes those steps again.

        Raises:
          UserError: all checkpoints are of another run, or one is of a newer format.
          RunError: all checkpoints are corrupt, or one does not fit into memory.
        """
        self._clean_up()
        folders, errors = self._folders(), []
        for step in reversed(folders):
            restored = None
            try:
                restored = self._restore(state, step)
            except (DamagedCheckpoint, ForeignCheckpoint) as error:
                errors.append(error)
                _log.warning("%s; trying the one before", error)
            if processes.any_process(restored is None):  # all must restore the same step
                continue
            sound = self.steps()
            self._set_aside([s for s in folders if s > step or s not in sound])
            return restored
        if foreign := [error for error in errors if isinstance(error, ForeignCheckpoint)]:
            raise foreign[0]
        if folders:
            raise RunError(
                f"all checkpoints in {self._directory} are damaged; to start the run again, "
                f"move its folder away"
            )
        return None

    def _folders(self) -> list[int]:
        """Return the steps of all committed checkpoints, corrupt ones included, in order."""
        if not self._directory.is_dir():
            return []
        names = (path.name for path in self._directory.iterdir())
        return sorted(int(name) for name in names if STEP.fullmatch(name))

    def _readable(
        self,
    ) -> tuple[dict[int, Metadata], dict[int, DamagedCheckpoint | ForeignCheckpoint]]:
        """Return the metadata of this run's checkpoints, and the errors of the others, by step."""
        readable: dict[int, Metadata] = {}
        errors: dict[int, DamagedCheckpoint | ForeignCheckpoint] = {}
        for step in self._folders():
            try:
                readable[step] = read_metadata(self._directory / str(step), self._config)
            except (DamagedCheckpoint, ForeignCheckpoint) as error:
                errors[step] = error
        return readable, errors

    def _candidates(self, step: int | Literal["best"] | None) -> list[int]:
        """Return the steps to try for `step`, best first; at least one."""
        readable, errors = self._readable()
        steps = sorted(readable)
        if step in errors:
            raise errors[step]
        if not steps:
            raise next(iter(errors.values()), UserError(f"{self._directory} holds no checkpoint"))
        if step is None:
            return steps[::-1]
        if step == "best":
            if not (ranked := _ranked(readable)):
                raise UserError(f"{self._directory} holds no checkpoint that was evaluated")
            return ranked
        if step not in steps:
            raise UserError(
                f"{self._directory} holds no checkpoint of step {step}; there are "
                f"{', '.join(map(str, steps))}"
            )
        return [step]

    def _restore(self, state: State, step: int) -> tuple[State, Progress]:
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
        )
        where = self._directory / str(step)
        metadata = read_metadata(where, self._config)
        try:
            stored = ocp.StandardCheckpointHandler().metadata(where / "state").tree
            stored_state.check_same_shapes(abstract, stored, where)
            restored = self._checkpointer.restore(
                where, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            ).state
        except UserError:
            raise
        except Exception as error:  # damage surfaces as many types, from JSON's to TensorStore's
            if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
                raise RunError(f"no memory to read {where} into: {first_line(error)}") from error
            raise DamagedCheckpoint(f"{where} cannot be read: {first_line(error)}") from error
        found = jax.device_get((stored_state.checksum(restored), restored.step))
        if found != (metadata["checksum"], step):
            raise DamagedCheckpoint(f"{where} is damaged: its checksum differs from the saved one")
        return restored, metadata["progress"]

    def _check_space(self, state: Any) -> None:
        # Orbax notices a full disk, too, but its threads print hundreds of lines about it.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + SPACE_OF_METADATA
        free = shutil.disk_usage(self._directory).free
        if processes.is_process_0() and free < needed:
            reason = os.strerror(errno.ENOSPC)
            raise OSError(f"{reason}; {needed:,} bytes are needed, and {free:,} are free")

    def _commit(self) -> None:
        self._checkpointer.wait_until_finished()
        if processes.is_process_0():
            sync(self._directory)  # the names; the files are on disk already
            self._delete_old()

    def _sync_files(self) -> None:
        """Flush the checkpoint that is being written; Orbax renames it to its step afterwards."""
        for folder in self._directory.glob(UNFINISHED):
            sync_tree(folder)

    def _delete_old(self) -> None:
        best = _ranked(self._readable()[0])[:1]
        for step in self._folders()[:-NUM_LATEST]:
            if step not in best:
                # Under another name first: a part of a checkpoint must not look like one.
                doomed = self._directory / f"{step}{DELETED}"
                (self._directory / str(step)).rename(doomed)
                shutil.rmtree(doomed)

    def _clean_up(self) -> None:
        """Delete what a killed process was writing or deleting."""
        if processes.is_process_0():
            for pattern in (f"*{DELETED}", UNFINISHED):
                for folder in self._directory.glob(pattern):
                    shutil.rmtree(folder, ignore_errors=True)
        processes.barrier()

    def _set_aside(self, steps: Iterable[int]) -> None:
        # Not deleted: what kept them from being read may have been the file system, for a moment.
        aside = self._directory.with_name("unreadable")
        for step in steps if processes.is_process_0() else ():
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)  # of an earlier time
            (self._directory / str(step)).rename(aside / str(step))
        processes.barrier()

    def _cannot_write(self, error: Exception) -> RunError:
        reason = first_line(error)
        if os.strerror(errno.ENOSPC) in str(error) and not isinstance(error, OSError):
            reason = os.strerror(errno.ENOSPC)  # TensorStore's line names many files
        return RunError(
            f"cannot write a checkpoint in {self._directory}: {reason}; the checkpoints before it "
            "are kept, and the same command continues from them"
        )


def _ranked(readable: Mapping[int, Metadata]) -> list[int]:
    """Return the evaluated steps, best first; see `Checkpoints.resolve_step`."""
    ranks = []
    for step, metadata in readable.items():
        if "val_accuracy" in metadata:  # a later step of the same accuracy is no improvement
            ranks.append((metadata["val_accuracy"], -step, step))
        elif metadata["test_accuracy"] is not None:
            ranks.append((metadata["test_accuracy"], step, step))
    return [step for *_, step in sorted(ranks, reverse=True)]
