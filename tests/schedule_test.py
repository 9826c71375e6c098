"""The learning rate as a function of the step."""

import math

import pytest
import tensorflow as tf

from trainer.schedule import Schedule


def factors(schedule, *steps):
    return [float(schedule.factor(tf.constant(step, tf.int64))) for step in steps]


def test_by_default_nothing_changes():
    assert Schedule().is_constant
    assert factors(Schedule(), 0, 10**6) == [1.0, 1.0]


def test_a_linear_schedule_falls_to_its_final_factor_and_stays():
    schedule = Schedule("linear", steps=10, final=0.2)
    assert factors(schedule, 0, 5, 10, 99) == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_a_cosine_schedule_is_half_a_cosine():
    schedule = Schedule("cosine", steps=8)
    expected = [0.5 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    assert factors(schedule, *range(9)) == pytest.approx(expected, abs=1e-6)


def test_the_warmup_rises_from_the_first_step_on():
    schedule = Schedule(warmup_steps=4)
    assert not schedule.is_constant
    assert factors(schedule, 0, 1, 3, 4, 100) == pytest.approx([0.25, 0.5, 1.0, 1.0, 1.0])


def test_warmup_and_schedule_multiply():
    schedule = Schedule("linear", steps=10, warmup_steps=2)
    assert factors(schedule, 0, 5) == pytest.approx([0.5, 0.5])


def test_a_schedule_keeps_its_precision_in_a_run_of_millions_of_steps():
    schedule = Schedule("linear", steps=10_000_000)
    assert factors(schedule, 9_999_999) == pytest.approx([1e-7], rel=0.2)
