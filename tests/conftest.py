"""What the tests share: a cache folder, so that the synthetic corpus is generated once a session."""

import pytest


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _hear_what_is_said(caplog):
    caplog.set_level("INFO", logger="absl")
