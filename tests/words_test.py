"""Singular and plural."""

import pytest

from trainer.words import plural


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (-1, "-1 steps")]
)
def test_a_count_of_one_is_singular_and_any_other_plural(count, expected):
    assert plural(count, "step") == expected
