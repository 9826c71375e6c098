"""Signals as requests; real processes, real signals."""

import os
import signal
import subprocess
import sys

import pytest


def run(arguments, **kwargs):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, **kwargs)


def signalled(code, **kwargs):
    """The answer of a process that may save, and signals itself."""
    program = f"""
import os, signal, time
from trainer.signals import Signals
signals = Signals()
signals.defer_to_loop = True
send = lambda name: os.kill(os.getpid(), signal.Signals["SIG" + name])
{code}
"""
    return run([sys.executable, "-c", program], **kwargs)


def test_a_second_signal_within_a_second_of_the_first_ends_nothing():
    answer = signalled(
        "send('TERM'); send('TERM'); send('INT'); print(signals.received, signals.stopped('saved.'))"
    )
    assert (answer.returncode, answer.stdout) == (0, "True Ended by SIGTERM: saved.\n")


def test_a_later_signal_ends_at_once_but_not_the_kernels_sigxcpu():
    answer = signalled(
        "send('TERM'); time.sleep(1.05); send('XCPU'); print('alive', flush=True); send('INT')"
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "alive\n", "Ended by SIGINT.\n")


def test_when_the_save_is_done_a_signal_ends_at_once():
    answer = signalled("send('TERM'); signals.defer_to_loop = False; send('TERM')")
    assert (answer.returncode, answer.stderr) == (143, "Ended by SIGTERM.\n")


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR2", "XCPU"])
def test_with_nothing_to_save_a_signal_ends_at_once(name):
    answer = signalled(f"signals.defer_to_loop = False; send('{name}')")
    assert (answer.returncode, answer.stderr) == (
        128 + signal.Signals[f"SIG{name}"],
        f"Ended by SIG{name}.\n",
    )


def test_a_signal_ends_with_its_code_when_its_word_cannot_be_said():
    read, write = os.pipe()
    os.close(read)
    program = "import os, signal; from trainer.signals import Signals; Signals()"
    program += "; os.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", program], stderr=write, check=False).returncode == 143
    os.close(write)


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored():
    program = "import os, signal; from trainer.signals import Signals; Signals()"
    program += "; os.kill(os.getpid(), signal.SIGHUP)"
    assert run(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1"])
def test_a_signal_when_the_work_is_done_does_not_change_the_exit_code(name):
    program = (
        "import atexit, os, signal; from trainer.signals import Signals\n"
        f"atexit.register(os.kill, os.getpid(), signal.{name})\n"
        "with Signals(): pass"
    )
    assert run([sys.executable, "-c", program]).returncode == 0


def test_a_request_to_save_is_taken_once():
    answer = signalled(
        "send('USR1'); print(signals.take_save_request(), signals.take_save_request(), signals.received)"
    )
    assert answer.stdout == "True False False\n"
