"""The first and the last step of --profile_steps; what else settings need is in `config_test`."""

import pytest

from trainer import config_checks


@pytest.mark.parametrize(
    ("steps", "window"), [("10:20", (10, 20)), ("1:1", (1, 1)), ("", None), ("0:3", None), ("5:4", None)]
)
def test_a_window_is_two_steps_in_order(steps, window):
    assert config_checks.window(steps) == window
