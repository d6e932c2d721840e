"""Work that releases the interpreter's lock, done on every core, its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
_MAX_THREADS = 8


def in_threads(work: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yield the results of pieces of work in order; a few are done at a time.

    torch itself uses one thread meanwhile: the pieces are what is parallel.
    """
    num_threads = min(_MAX_THREADS, _num_cores())
    with _one_torch_thread(), ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for piece in work:
                waiting.append(pool.submit(piece))
                if len(waiting) > 2 * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _num_cores() -> int:
    # Not every system tells which cores a process may use.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    # glibc keeps what is freed, up to twice the largest block ever freed if that is below 32 MiB;
    # otherwise every piece of work would get new pages from the kernel. This one is never touched.
    torch.empty((1 << 25) - (1 << 16), dtype=torch.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
