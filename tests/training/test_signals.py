"""SIGINT, SIGTERM and SIGHUP: collected once, then as before."""

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from jaxcnn.training.signals import Interrupted, stop_signals

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def test_stop_signals_collects_one_and_a_second_acts_as_before():
    assert threading.current_thread() is threading.main_thread()
    before = [signal.getsignal(number) for number in NUMBERS]
    with stop_signals() as received:
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is before[0]
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_stop_signals_restores_the_handlers_after_an_error():
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(KeyError), stop_signals():
        raise KeyError
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_stop_signals_leaves_the_handlers_alone_outside_the_main_thread():
    before, found = [signal.getsignal(number) for number in NUMBERS], []

    def run():
        with stop_signals() as received:
            found.extend([received == [], [signal.getsignal(number) for number in NUMBERS]])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [True, before]


def test_stop_signals_leaves_an_ignored_signal_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_stop_signals_leaves_a_terminal_that_hung_up():
    code = """
import os, signal
from jaxcnn.training.signals import stop_signals
with stop_signals() as received:
    os.kill(os.getpid(), signal.SIGHUP)
    print("to nobody", flush=True)
    assert received == [signal.SIGHUP] and os.readlink("/proc/self/fd/1") == "/dev/null"
"""
    terminal, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=slave, stderr=slave)
    os.close(slave)
    assert process.wait(timeout=240) == 0
    os.close(terminal)


def test_interrupted_has_the_exit_status_of_its_signal():
    error = Interrupted(1234, 5678, signal.SIGTERM)
    assert error.exit_code == 128 + 15 and "SIGTERM at step 1,234 of 5,678" in str(error)
