"""A run of 20,000 steps: files, descriptors and threads do not grow, memory hardly."""

import statistics
import sys
import time
from pathlib import Path

import pytest
from fault_runs import Tally

STEPS_PER_EPOCH, EPOCHS = 250, 80  # 4,000 digits in batches of 16
LONG = ("--batch-size", 16, "--epochs", EPOCHS, "--checkpoint-every-steps", 50)


def usage(pid, folder):
    """Return the last step with a checkpoint, and what the process uses."""
    process = Path("/proc", str(pid))
    steps = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    return {
        "step": max(steps, default=0),
        "MiB": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "descriptors": len(list((process / "fd").iterdir())),
        "files": sum(1 for _ in folder.rglob("*")),
    }


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_20000_steps_keep_nothing(tmp_path):
    tally = Tally("20,000 steps", ("lenet5-mnist5k", *LONG))
    [process] = tally.start(tmp_path / "run")
    samples = []
    while process.poll() is None:
        try:
            samples.append(usage(process.pid, tmp_path / "run"))
        except (OSError, KeyError):  # a checkpoint is renamed, or the process ends
            continue
        time.sleep(0.2)
    status, errors = tally.end([process], "20,000 steps")
    assert status == 0 and not tally.tracebacks, errors
    total = STEPS_PER_EPOCH * EPOCHS

    def middle(name, first, last):
        """Return the median between two parts of the run; the last samples draw the curves."""
        return statistics.median(
            s[name] for s in samples if first * total <= s["step"] <= last * total
        )

    early, late = (
        {name: middle(name, *part) for name in samples[0]} for part in ((0.5, 0.7), (0.8, 1.0))
    )
    print(f"\n{early}\n{late}")
    assert samples[-1]["step"] == total
    # TensorStore 0.1.86 frees no JSON that it returns: up to 0.1 MiB for each of 120 checkpoints.
    assert late["MiB"] <= early["MiB"] + 12
    for name in ("threads", "descriptors", "files"):
        assert late[name] <= 1.2 * early[name], (name, early, late)
