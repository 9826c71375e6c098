"""Singular and plural, and long words."""

import pytest

from trainer.words import plural, shortened


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (-1, "-1 steps")]
)
def test_a_count_of_one_is_singular_and_any_other_plural(count, expected):
    assert plural(count, "step") == expected


@pytest.mark.parametrize(("text", "expected"), [("", ""), ("abcdef", "abcdef"), ("abcdefg", "abc...")])
def test_a_text_is_shortened_only_if_it_is_longer(text, expected):
    assert shortened(text, 6) == expected
