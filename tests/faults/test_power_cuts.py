"""The disk when the power fails: an ext4 image copied while the run goes on, then mounted."""

import contextlib
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_runs import FLAGS, Tally, wait_for_step

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux"
        or os.geteuid() != 0
        or not Path("/dev/loop-control").exists()
        or shutil.which("mkfs.ext4") is None,
        reason="needs root, loop devices and mkfs.ext4",
    ),
]

EPOCHS = ("--epochs", 4, "--checkpoint-every-steps", 5)


@contextlib.contextmanager
def mounted(image, place):
    """Mount an image of a disk."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def copy_disk(image, target, process):
    """Copy the disk at one moment: nothing is written while the process stands still."""
    process.send_signal(signal.SIGSTOP)
    while True:
        shutil.copyfile(image, target)
        shutil.copyfile(image, again := target.with_suffix(".again"))
        if filecmp.cmp(target, again, shallow=False):  # the kernel wrote nothing meanwhile, either
            break
    again.unlink()
    process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("count", [12])
def test_power_cuts(count, tmp_path):
    rng = random.Random(2)
    tally = Tally("power cut", ("lenet5-mnist5k", *FLAGS, *EPOCHS))
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(96 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    copies = []
    with mounted(image, tmp_path / "mount") as place:
        [process] = tally.start(place / "run")
        for step in sorted(rng.sample(range(1, 240), count)):
            wait_for_step(place / "run", step, process)
            time.sleep(rng.uniform(0, 0.1))
            if process.poll() is not None:
                break
            copies.append(tmp_path / f"{step}")
            copy_disk(image, copies[-1], process)
        process.kill()
        tally.end([process], "the run whose disk is copied")
    assert len(copies) == count
    for copy in copies:
        with mounted(copy, tmp_path / "mount") as place:
            # Not in the first 5 steps: a run that has no checkpoint has nothing to lose.
            steps = [path.name for path in place.glob("run/checkpoints/*") if path.name.isdigit()]
            assert steps or int(copy.name) < 10, f"nothing is left at step {copy.name}"
            tally.finish(place / "run", f"cut at step {copy.name}")
        copy.unlink()
    tally.assert_nothing_happened()
