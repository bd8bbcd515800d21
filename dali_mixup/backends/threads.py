"""Threads that mix the samples of a batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from itertools import pairwise

in_a_loader: ContextVar[bool] = ContextVar("in_a_loader", default=False)
"""Whether a loader mixes, which leaves the other cores to those who prepare the next batches."""

PARTS = 8
"""For each thread, so that one that has its core for itself takes more of them."""

_pools: dict[int, ThreadPoolExecutor] = {}


def share(work: Callable[[int, int], object], count: int, workers: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, in `workers` threads.

    The thread that calls works as well. `work` releases the GIL.
    """
    if workers == 1:
        work(0, count)
        return
    number = max(1, min(workers * PARTS, count))
    parts = deque(pairwise(count * part // number for part in range(number + 1)))

    def take_parts() -> None:
        while parts:
            try:
                part = parts.popleft()
            except IndexError:  # another thread took the last one
                return
            work(*part)

    helpers = [_pool(workers).submit(take_parts) for _ in range(workers - 1)]
    take_parts()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ThreadPoolExecutor(workers - 1, "dali-mixup")
    return _pools[workers]


os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork
