"""Loads `shared_fixtures` into each process that runs tests."""

import signal

import xla_cache


def let_children_have_ignored_signals():
    """Has ignored signals do nothing here, so that what this process starts does not ignore them.

    A process inherits which signals are ignored: those of `nohup`, and of `&` in a script. A handler is not
    inherited.
    """
    ignored = {signum for signum in signal.valid_signals() if signal.getsignal(signum) == signal.SIG_IGN}
    for signum in ignored - {signal.SIGPIPE, signal.SIGXFSZ}:  # Python itself ignores these, in this process.
        signal.signal(signum, lambda *_: None)


def pytest_configure(config):
    let_children_have_ignored_signals()
    xla_cache.share()
    # The process that hands out the tests to the workers of xdist runs none, and need not import TensorFlow.
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_unconfigure():
    xla_cache.remove()
