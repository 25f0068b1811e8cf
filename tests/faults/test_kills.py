"""A run that is killed or stopped at any moment ends as one that nothing disturbed."""

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fault_runs import Tally, variants

SHIM = Path(__file__).with_name("kill_before.c")
KINDS = (
    "in memory",
    "averaged",
    "accumulated",
    "diagonal-lm",
    "fine-tuned",
    "validated",
    "streamed",
)


@pytest.mark.slow
@pytest.mark.parametrize("count", [12])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(kind, count, tmp_path):
    rng = random.Random(kind)
    tally = Tally(f"kill -9 at a random moment, {kind}", variants()[kind])
    for i in range(count):
        for _ in range(rng.choice([1, 1, 2])):
            [process] = tally.start(tmp_path / str(i))
            time.sleep(rng.uniform(2, 9))
            process.kill()
            tally.end([process], i)
        tally.finish(tmp_path / str(i), i)
    tally.assert_nothing_happened()


@pytest.mark.slow
@pytest.mark.parametrize("count", [10])
def test_one_of_two_processes_killed_at_random_moments(count, tmp_path):
    rng = random.Random(3)
    tally = Tally("kill -9 of one of two processes", num_processes=2)
    for i in range(count):
        pair = tally.start(tmp_path / str(i))
        while not (tmp_path / str(i)).exists() and pair[0].poll() is None:  # both have joined
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 12))
        pair[i % 2].kill()
        tally.end(pair, i)
        tally.finish(tmp_path / str(i), i)
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
@pytest.mark.parametrize(
    ("kind", "count"), [(kind, 40 if kind == KINDS[0] else 6) for kind in KINDS]
)
def test_killed_before_each_kind_of_change(kind, count, shim, tmp_path):
    tally = Tally(f"kill -9 before the k-th change, {kind}", variants()[kind])
    environment = {"LD_PRELOAD": str(shim), "KILL_FOLDER": str(tmp_path), "KILL_BEFORE": "0"}
    _, errors = tally.end(tally.start(tmp_path / "whole", **environment), "whole")
    total = int(re.search(r"changes: (\d+)", errors)[1])
    assert total > count
    for i in range(count):
        number, status = 1 + i * total // count, 0
        while status != -signal.SIGKILL:  # the numbers of changes of two runs differ by a tenth
            folder = tmp_path / f"{i}-{number}"
            environment["KILL_BEFORE"] = str(number)
            status, _ = tally.end(tally.start(folder, **environment), i)
            number = number * 9 // 10
        tally.finish(folder, i)
    tally.assert_nothing_happened()


@pytest.mark.slow
@pytest.mark.parametrize("count", [20])
def test_stopped_by_signals(count, tmp_path):
    rng = random.Random(1)
    tally = Tally("SIGINT, SIGTERM or SIGHUP, half of them twice")
    for i in range(count):
        folder = tmp_path / str(i)
        [process] = tally.start(folder)
        while not folder.exists() and process.poll() is None:  # Python and its imports
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 8))
        number = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        process.send_signal(number)
        if i % 2:
            time.sleep(rng.choice([0, 0.01, 0.2]))
            process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        status, errors = tally.end([process], (i, number))
        # While Python itself ends, the second one has its default effect.
        ended = status < 0 and (folder / "result.json").exists()
        assert ended or status in (0, 128 + 1, 128 + 2, 128 + 15), (i, status, errors)
        assert status <= 0 or errors.count("\n") == 1, (i, errors)
        tally.finish(folder, i)
    tally.assert_nothing_happened()


@pytest.mark.slow
@pytest.mark.parametrize("count", [5])
def test_two_processes_in_one_folder(count, tmp_path):
    tally = Tally("two processes in one folder")
    for i in range(count):
        folder = tmp_path / str(i)
        pair = [tally.start(folder), tally.start(folder)]
        statuses = sorted(tally.end(run, i)[0] for run in pair)
        assert statuses in ([0, 2], [0, 0])  # the second may start when the first is finished
        tally.finish(folder, i)
    tally.assert_nothing_happened()
