"""Threads that mix the samples of a batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from itertools import pairwise

in_a_loader: ContextVar[bool] = ContextVar("in_a_loader", default=False)
"""Whether a loader mixes, which leaves the other cores to those who prepare the next batches."""

PARTS = 8
"""For each thread, so that one that has its core for itself takes more of them."""


def share(work: Callable[[int, int], object], count: int, workers: int) -> None:
    """Call ``work(first, last)`` for parts of ``range(count)``, in at most `workers` threads.

    The thread that calls works as well, and alone where no other can be started. `work` releases
    the GIL.
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

    helpers: list[Future[None]] = []
    try:
        with suppress(RuntimeError):  # the interpreter ends, or the system has no more threads
            for _ in range(workers - 1):
                helpers.append(_pool().submit(take_parts))
        take_parts()
    finally:
        parts.clear()
        working = [helper for helper in helpers if not helper.cancel()]
        wait(working)
    for helper in working:
        helper.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Starts threads as they are needed, and keeps them."""
    return ThreadPoolExecutor(os.cpu_count(), "dali-mixup")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
