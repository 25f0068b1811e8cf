"""A disk that fills up: one line, exit status 1, and the run continues when there is room."""

import contextlib
import os
import subprocess
import sys

import pytest
from fault_runs import Tally

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to mount a small disk"
    ),
]

KIB_OF_RUN = (16, 64, 256, 512, 1024, 1536, 2048, 2560, 3072, 3500, 4000, 4500)
KIB_OF_CACHE = (4, 64, 256, 1024)


@contextlib.contextmanager
def small_disk(place, kib):
    """Mount a disk in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_full_disk_of_the_run(tmp_path):
    tally = Tally("full disk of the run's folder")
    refused = 0
    for kib in KIB_OF_RUN:
        with small_disk(tmp_path / str(kib), kib) as place:
            status, errors = tally.end(tally.start(place / "run"), kib)
            assert status == 0 or (status == 1 and "No space left" in errors), (kib, errors)
            refused += status == 1
            subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
            tally.finish(place / "run", kib)
    assert refused > 5
    tally.assert_nothing_happened()


@pytest.mark.parametrize("variable", ["JAXCNN_CACHE_DIR", "TMPDIR"])
def test_full_disk_of_other_folders(variable, tmp_path):
    tally = Tally(f"full disk of {variable}")
    for kib in KIB_OF_CACHE:
        with small_disk(tmp_path / str(kib), kib) as place:
            (place / "fill").write_bytes(b"0" * (kib - 4) * 1024)
            folder = tmp_path / f"run{kib}"
            tally.end(tally.start(folder, **{variable: str(place)}), kib)
            tally.finish(folder, kib)
    tally.assert_nothing_happened()
