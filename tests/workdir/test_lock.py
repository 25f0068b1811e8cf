"""One process at a time trains in a folder, on file systems without locks, too."""

import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys

import pytest

from jaxcnn import records
from jaxcnn.errors import UserError
from jaxcnn.workdir.lock import lock


@pytest.fixture
def without_flock(monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", unsupported)


def test_lock_does_not_wait_for_a_fifo(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(OSError, match="No such device"), lock(tmp_path):
        pass


def test_lock_refuses_a_second_one(tmp_path):
    with lock(tmp_path), pytest.raises(UserError, match="another process is training in"):
        with lock(tmp_path):
            pass
    with lock(tmp_path):
        pass


def test_lock_without_flock_is_a_file_of_its_owner(tmp_path, without_flock, caplog):
    path = tmp_path / ".lock.owner"
    with caplog.at_level(logging.WARNING), lock(tmp_path):
        owner = json.loads(path.read_text())
        assert owner["pid"] == os.getpid() and owner["host"] == socket.gethostname()
        with pytest.raises(UserError, match=f"another process is .*process {os.getpid()} on "):
            with lock(tmp_path):
                pass
        assert path.exists()
    assert not path.exists()
    assert "file system without flock" in caplog.text


@pytest.mark.parametrize("reused", [False, True])
def test_lock_without_flock_removes_the_file_of_a_process_that_ended(
    reused, tmp_path, without_flock, caplog
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    pid = os.getpid() if reused else ended.pid  # the number was given to another process
    owner = {"host": socket.gethostname(), "pid": pid, "started": "1"}
    (tmp_path / ".lock.owner").write_text(records.dumps(owner))
    with caplog.at_level(logging.WARNING), lock(tmp_path):
        pass
    assert "has ended; the lock is removed" in caplog.text


@pytest.mark.parametrize("content", ["", records.dumps({"host": "x", "pid": 1, "started": None})])
def test_lock_without_flock_keeps_a_file_it_cannot_judge(content, tmp_path, without_flock):
    (tmp_path / ".lock.owner").write_text(content)
    with pytest.raises(UserError, match="or delete that file if it is not so"):
        with lock(tmp_path):
            pass
    assert (tmp_path / ".lock.owner").exists()
