"""Threads that work side by side on a sequence, as many as there are usable cores."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from trainer import machine

Item = TypeVar("Item")
Result = TypeVar("Result")


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Applies `function` to each item in parallel; yields the results in the order of the items.

    TensorFlow's eager operations run on the calling thread and release Python's global lock, so the thread
    counts that are set for training do not apply here. At most two items more than there are cores are in
    memory.
    """
    return in_threads(function, items, threads=machine.usable_cores())


def on_pairs_of_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """As `on_all_cores`, for a function that keeps two cores busy; on two cores, without a thread."""
    threads = machine.usable_cores() // 2
    return in_threads(function, items, threads=threads) if threads > 1 else map(function, items)


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, threads: int
) -> Iterator[Result]:
    """Applies `function` to each item in `threads` threads; yields the results in the order of the items."""
    with ThreadPoolExecutor(threads) as pool:
        running: collections.deque[Future[Result]] = collections.deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
