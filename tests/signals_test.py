"""Signals as requests to stop or save, sent to real processes."""

import os
import signal
import subprocess
import sys

import pytest


def run(arguments, **kwargs):
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120, **kwargs)


def run_signalled(code, **kwargs):
    """Runs `code` in a process that signals itself and defers stop requests to the training loop."""
    program = f"""
import os, signal, time
from trainer.signals import Signals
signals = Signals()
signals.defer_to_loop = True
send = lambda name: os.kill(os.getpid(), signal.Signals["SIG" + name])
{code}
"""
    return run([sys.executable, "-c", program], **kwargs)


def test_a_second_signal_within_a_second_of_the_first_is_ignored():
    completed = run_signalled(
        "send('TERM'); send('TERM'); send('INT'); print(signals.received, signals.stopped('saved.'))"
    )
    assert (completed.returncode, completed.stdout) == (0, "True Ended by SIGTERM: saved.\n")


def test_a_later_signal_ends_the_process_at_once_unless_it_is_sigxcpu():
    completed = run_signalled(
        "send('TERM'); time.sleep(1.05); send('XCPU'); print('alive', flush=True); send('INT')"
    )
    assert (completed.returncode, completed.stdout, completed.stderr) == (
        130,
        "alive\n",
        "Ended by SIGINT.\n",
    )


def test_after_the_save_a_signal_ends_the_process_at_once():
    completed = run_signalled("send('TERM'); signals.defer_to_loop = False; send('TERM')")
    assert (completed.returncode, completed.stderr) == (143, "Ended by SIGTERM.\n")


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR2", "XCPU"])
def test_with_nothing_to_save_a_signal_ends_the_process_at_once(name):
    completed = run_signalled(f"signals.defer_to_loop = False; send('{name}')")
    assert (completed.returncode, completed.stderr) == (
        128 + signal.Signals[f"SIG{name}"],
        f"Ended by SIG{name}.\n",
    )


def test_a_signal_gives_its_exit_code_when_standard_error_is_broken():
    read, write = os.pipe()
    os.close(read)
    program = "import os, signal; from trainer.signals import Signals; Signals()"
    program += "; os.kill(os.getpid(), signal.SIGTERM)"
    assert subprocess.run([sys.executable, "-c", program], stderr=write, check=False).returncode == 143
    os.close(write)


def test_sighup_that_is_ignored_at_startup_stays_ignored():
    program = "import os, signal; from trainer.signals import Signals; Signals()"
    program += "; os.kill(os.getpid(), signal.SIGHUP)"
    assert run(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGXCPU", "SIGUSR1"])
def test_a_signal_after_the_work_is_done_does_not_change_the_exit_code(name):
    program = (
        "import atexit, os, signal; from trainer.signals import Signals\n"
        f"atexit.register(os.kill, os.getpid(), signal.{name})\n"
        "with Signals(): pass"
    )
    assert run([sys.executable, "-c", program]).returncode == 0


def test_a_save_request_is_taken_only_once():
    completed = run_signalled(
        "send('USR1'); print(signals.take_save_request(), signals.take_save_request(), signals.received)"
    )
    assert completed.stdout == "True False False\n"


def test_no_test_starts_a_process_that_ignores_signals_because_pytest_does():
    program = f"""
import os, signal, subprocess, sys
sys.path[:0] = {sys.path!r}
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
import conftest
conftest.let_children_have_ignored_signals()
os.kill(os.getpid(), signal.SIGHUP)
for name in ("HUP", "INT"):
    print(subprocess.run(["sh", "-c", f"trap 'exit 9' {{name}}; kill -{{name}} $$"]).returncode)
"""
    assert run([sys.executable, "-c", program]).stdout == "9\n9\n"
