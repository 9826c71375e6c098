"""Loads `shared_fixtures` into each process that runs tests."""

import xla_cache


def pytest_configure(config):
    xla_cache.share()
    # The process that hands out the tests to the workers of xdist runs none, and need not import TensorFlow.
    is_worker = hasattr(config, "workerinput")
    if is_worker or not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("shared_fixtures")


def pytest_unconfigure():
    xla_cache.remove()
