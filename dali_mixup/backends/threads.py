"""A pool of threads for numpy, which releases Python's lock while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

Part = TypeVar("Part")
Items = TypeVar("Items", bound=Sequence[object])


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="dali-mixup")


# A forked process has the pool's object and none of its threads.
os.register_at_fork(after_in_child=_pool.cache_clear)


def run_each(call: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Call with each part: the first in this thread, the others in threads of the pool."""
    first, *others = parts
    futures = [_pool().submit(call, part) for part in others]
    try:
        call(first)
    finally:
        wait(futures)
    for future in futures:
        future.result()


def split(items: Items, count: int) -> list[Items]:
    """The items in at most `count` runs of nearly equal length; one empty run where none are."""
    count = max(1, min(count, len(items)))
    edges = [len(items) * i // count for i in range(count + 1)]
    return [items[start:stop] for start, stop in pairwise(edges)]  # type: ignore[misc]
