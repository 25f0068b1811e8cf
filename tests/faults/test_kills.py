"""A run that is killed or stopped at any moment ends as one that nothing disturbed."""

import itertools
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fault_runs import Tally, kill, undisturbed, variants

SHIM = Path(__file__).with_name("kill_before.c")


@pytest.mark.slow
@pytest.mark.parametrize("count", [60])
def test_killed_at_random_moments(count, tmp_path):
    rng = random.Random(0)
    tallies = [Tally(f"kill -9 at a random moment, {n}", args) for n, args in variants().items()]
    for i, tally in zip(range(count), itertools.cycle(tallies), strict=False):
        undisturbed(tally.arguments)
        folder = tmp_path / str(i)
        for _ in range(rng.choice([1, 1, 2])):
            process = tally.start(folder)
            time.sleep(rng.uniform(2, 9))
            kill(process)
        tally.finish(folder, i)
    for tally in tallies:
        tally.assert_nothing_happened()


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    """A library that, preloaded, kills a process before its n-th change below a folder."""
    library = tmp_path_factory.mktemp("shim") / "kill_before.so"
    try:
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"]
        subprocess.run(command, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a C compiler")
    return library


@pytest.mark.slow
@pytest.mark.parametrize("count", [40])
def test_killed_before_each_kind_of_change(count, shim, tmp_path):
    tally = Tally("kill -9 before the k-th change below the folder")
    environment = {"LD_PRELOAD": str(shim), "KILL_FOLDER": str(tmp_path), "KILL_BEFORE": "0"}
    _, errors = tally.end(tally.start(tmp_path / "whole", **environment), "whole")
    total = int(re.search(r"changes: (\d+)", errors)[1])
    assert total > count
    tally.tracebacks.clear()  # the shim's own line
    for i in range(count):
        folder = tmp_path / str(i)
        environment["KILL_BEFORE"] = str(1 + i * total // count)
        process = tally.start(folder, **environment)
        process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL
        tally.finish(folder, i)
    tally.assert_nothing_happened()


@pytest.mark.slow
@pytest.mark.parametrize("count", [20])
def test_stopped_by_signals(count, tmp_path):
    rng = random.Random(1)
    tally = Tally("SIGINT, SIGTERM or SIGHUP, half of them twice")
    for i in range(count):
        folder = tmp_path / str(i)
        process = tally.start(folder)
        while not folder.exists() and process.poll() is None:  # Python and its imports
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 8))
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process.send_signal(number)
        if i % 2:
            time.sleep(rng.choice([0, 0.01, 0.2]))
            process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        status, errors = tally.end(process, (i, number))
        assert status in (0, 128 + 1, 128 + 2, 128 + 15), (i, status, errors)
        assert status == 0 or errors.count("\n") == 1, (i, errors)
        tally.finish(folder, i)
    tally.assert_nothing_happened()


@pytest.mark.slow
@pytest.mark.parametrize("count", [5])
def test_two_processes_in_one_folder(count, tmp_path):
    tally = Tally("two processes in one folder")
    for i in range(count):
        folder = tmp_path / str(i)
        pair = [tally.start(folder), tally.start(folder)]
        statuses = sorted(tally.end(process, i)[0] for process in pair)
        assert statuses in ([0, 2], [0, 0])  # the second may start when the first is finished
        tally.finish(folder, i)
    tally.assert_nothing_happened()
