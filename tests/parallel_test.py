"""Threads that work side by side."""

import threading

import pytest
import tensorflow as tf

from trainer import machine
from trainer.data.vocabulary import WORDS
from trainer.parallel import on_all_cores, on_pairs_of_cores


@pytest.fixture
def cores(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    return 4


def test_results_of_all_cores_come_in_order(cores):
    last = threading.Event()

    def late(number):
        if number == 1:
            last.set()
        assert number or last.wait(60), "the first is the last to be done"
        return number * number

    assert list(on_all_cores(late, range(50))) == [number * number for number in range(50)]


def test_all_cores_work_at_a_time_whatever_the_threads_of_training(cores):
    assert tf.config.threading.get_intra_op_parallelism_threads() == 1
    all_at_work = threading.Barrier(cores, timeout=20)

    def meet(text):
        all_at_work.wait()
        return WORDS([text]).to_list()

    assert list(on_all_cores(meet, ["a b", "c"] * cores)) == [[[b"a", b"b"]], [[b"c"]]] * cores


def test_no_more_is_read_than_the_cores_can_take(cores):
    read = []
    for taken, _ in enumerate(on_all_cores(str, (read.append(number) for number in range(100)))):
        assert len(read) <= taken + cores + 1


def test_an_error_on_a_core_is_raised_here(cores):
    with pytest.raises(ZeroDivisionError):
        list(on_all_cores(lambda number: 1 // number, range(3)))


def test_a_function_that_keeps_two_cores_busy_runs_on_each_pair_of_them(cores):
    both_at_work = threading.Barrier(cores // 2, timeout=20)

    def meet(number):
        both_at_work.wait()
        return number

    assert list(on_pairs_of_cores(meet, range(6))) == list(range(6))


def test_on_two_cores_such_a_function_is_called_here(monkeypatch):
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    threads = {threading.current_thread()}
    assert set(on_pairs_of_cores(lambda _: threading.current_thread(), range(3))) == threads
