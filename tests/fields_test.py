"""The bounds of a field."""

import dataclasses

import pytest

from trainer import fields
from trainer.fields import FREE


def field(kind, default, **bounds):
    made = dataclasses.make_dataclass(
        "Made", [("value", kind, fields.define("Data", FREE, default, "", **bounds))]
    )
    return dataclasses.fields(made)[0]


@pytest.mark.parametrize(
    ("made", "inside", "outside", "requirement"),
    [
        (field(int, 3, lower=1), [1, 2**31 - 1], [0, 2**31], "an integer from 1 to 2147483647"),
        (field(float, 0.5, above=0.0), [1e-9, 1e9], [0.0, float("nan")], "a finite number above 0.0"),
        (
            field(float, 0.1, above=0.0, upper=0.4),
            [0.4],
            [0.5, 0.0],
            "a finite number above 0.0, at most 0.4",
        ),
        (field(float, 0.0, lower=0.0), [0.0], [-1.0, float("inf")], "a finite number of at least 0.0"),
        (field(float | None, None), [None, -1.0], [float("inf")], "a finite number"),
        (field(str, "a", choices=("a", "b")), ["a", "b"], ["c"], "one of a, b"),
    ],
)
def test_bounds_are_checked_and_described(made, inside, outside, requirement):
    assert all(fields.is_within_bounds(value, made.metadata) for value in inside)
    assert not any(fields.is_within_bounds(value, made.metadata) for value in outside)
    assert fields.requirement(made) == requirement
