"""Threads that mix the samples of a batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from itertools import pairwise

in_a_loader: ContextVar[bool] = ContextVar("in_a_loader", default=False)
"""Whether a loader mixes, which leaves the other cores to those who prepare the next batches."""

_pools: dict[int, ThreadPoolExecutor] = {}


def share(work: Callable[[int, int], object], count: int, workers: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, in `workers` threads.

    The thread that calls works as well. `work` releases the GIL.
    """
    if workers == 1:
        work(0, count)
        return
    edges = [count * part // workers for part in range(workers + 1)]
    own, *others = pairwise(edges)
    waiting = [_pool(workers).submit(work, *part) for part in others]
    work(*own)
    for part in waiting:
        part.result()


def _pool(workers: int) -> ThreadPoolExecutor:
    if workers not in _pools:
        _pools[workers] = ThreadPoolExecutor(workers - 1, "dali-mixup")
    return _pools[workers]


os.register_at_fork(after_in_child=_pools.clear)  # threads do not survive a fork
