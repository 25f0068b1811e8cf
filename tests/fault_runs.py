"""Runs into which tests/faults inject faults, and their comparison with an undisturbed one."""

import dataclasses
import functools
import itertools
import json
import pathlib
import socket
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from helpers import CLASSES, save_image, start_script

TIMES = {"train_seconds", "compile_seconds", "total_seconds", "examples_per_second"}
OF_A_PLACE = {"workdir", "sha256"}  # the digest covers the times

FLAGS = ("--epochs", 1, "--checkpoint-every-steps", 10, "--log-every-steps", 5)


@functools.cache
def folder_of_images():
    """Return a folder with 90 training and 9 test images."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxcnn-test-images-"))
    for i in range(99):
        split = "train" if i < 90 else "val"
        save_image(folder / split / CLASSES[i % 3] / f"{i}.png", 40 + i % 5, 40, seed=i)
    return folder


def variants():
    """Return the arguments of several kinds of runs by name."""
    streamed = ("--dataset", f"folder:{folder_of_images()}", "--stream-size", 28, "--channels", 1)
    of_1998 = ("--dataset", "mnist5k", "--optimizer.learning-rate", 0.0005)
    tuned = ("--model", "lenet5", "--init-from", "lenet5-mnist", "--freeze", "C1", "C3")
    return {
        "in memory": ("lenet5-mnist5k", *FLAGS),
        "averaged": ("lenet5-mnist5k", *FLAGS, "--ema-decay", 0.9),
        "accumulated": ("lenet5-mnist5k", *FLAGS, "--optimizer.accumulate", 3),
        "diagonal-lm": ("lenet5-1998-minibatch-mnist", *of_1998, *FLAGS),
        "fine-tuned": ("lenet5-mnist5k", *tuned, *FLAGS, "--new-head", "--ema-decay", 0.9),
        "validated": ("lenet5-mnist5k", *FLAGS, "--val-fraction", 0.2, "--epochs", 2),
        "streamed": ("lenet5-mnist5k", *streamed, *FLAGS, "--epochs", 20, "--batch-size", 30),
    }


def arrays(state_folder):
    """Return the arrays of a checkpoint, by name, as bytes."""
    tree = ocp.StandardCheckpointHandler().metadata(state_folder).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        restored = checkpointer.restore(
            state_folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy)
        )
    leaves = jax.tree_util.tree_leaves_with_path(restored)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def without(record, names):
    """Return a JSON value without the fields in `names`, at any depth."""
    if isinstance(record, dict):
        return {key: without(value, names) for key, value in record.items() if key not in names}
    return record


def content(folder):
    """Return everything that a run leaves behind, except times and places."""
    kept = {"log": (folder / "metrics.jsonl").read_bytes()}
    for name in ("config.json", "result.json"):
        kept[name] = without(json.loads((folder / name).read_bytes()), TIMES | OF_A_PLACE)
    for step in (folder / "checkpoints").iterdir():
        metadata = json.loads((step / "metadata" / "metadata").read_bytes())
        log_digest = metadata["progress"].pop("log")
        metadata = without(metadata, TIMES | OF_A_PLACE)
        kept[f"checkpoint {step.name}"] = (metadata, log_digest, arrays(step / "state"))
    return kept


@functools.cache
def undisturbed(arguments, num_processes):
    """Return the `content` of a run that nothing disturbs."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxcnn-test-undisturbed-")) / "run"
    for process in start(arguments, num_processes, folder):
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return content(folder)


def start(arguments, num_processes, folder, **environment):
    """Start the processes of a run in a folder, and return them."""
    arguments = (*arguments, "--workdir", folder)
    if num_processes == 1:
        return [start_script("train.py", *arguments, **environment)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    arguments += ("--multihost", "--coordinator", address, "--num-processes", num_processes)
    return [
        start_script("train.py", *arguments, "--process-id", i, **environment)
        for i in range(num_processes)
    ]


@dataclasses.dataclass
class Tally:
    """Counts of what faults did; each run is finished and compared with an undisturbed one."""

    fault: str
    arguments: tuple = ("lenet5-mnist5k", *FLAGS)
    num_processes: int = 1
    injected: int = 0
    lost: list = dataclasses.field(default_factory=list)
    wrong: list = dataclasses.field(default_factory=list)
    tracebacks: list = dataclasses.field(default_factory=list)

    def start(self, folder, **environment):
        """Start the run in a folder; return its processes."""
        return start(self.arguments, self.num_processes, folder, **environment)

    def end(self, processes, note):
        """Wait for the processes; count a traceback or a warning of Python's in their output.

        Return the largest exit status and all errors.
        """
        outputs = [process.communicate(timeout=600) for process in processes]
        for text in itertools.chain.from_iterable(outputs):
            if "Traceback" in text or "Warning:" in text:
                self.tracebacks.append((note, text[-2000:]))
        errors = "".join(errors for _, errors in outputs)
        return max(process.returncode for process in processes), errors

    def finish(self, folder, note, starts=3):
        """Start the run again until it is finished; count it if it is lost or differs."""
        self.injected += 1
        for _ in range(starts):
            status, errors = self.end(self.start(folder), note)
            if status == 0:
                break
        else:
            self.lost.append((note, errors[-2000:]))
            return
        expected, found = undisturbed(self.arguments, self.num_processes), content(folder)
        differing = [key for key in expected.keys() | found if expected.get(key) != found.get(key)]
        if differing:
            self.wrong.append((note, differing))
        print(self.row(), flush=True)  # a harness of hours may be stopped

    def row(self):
        """Return the counts so far as a row of the README's table."""
        counts = self.injected, len(self.lost), len(self.wrong), len(self.tracebacks)
        return f"| {self.fault} | {' | '.join(map(str, counts))} |"

    def assert_nothing_happened(self):
        """Assert that nothing was lost, wrong or a traceback."""
        assert not (self.lost or self.wrong or self.tracebacks), self


def wait_for_step(folder, step, process):
    """Wait until a run has a checkpoint of `step` or later, or has ended."""
    while process.poll() is None:
        names = [path.name for path in folder.glob("checkpoints/*") if path.name.isdigit()]
        if any(int(name) >= step for name in names):
            return
        time.sleep(0.001)
