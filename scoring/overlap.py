"""Work that overlaps: one thread produces ahead of its consumer, another consumes behind its producer.

Arrow, NumPy and the model libraries release the interpreter's lock while they read, predict and write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

Item = TypeVar("Item")

_END: Final[Any] = object()


def ahead(items: Iterator[Item], *, depth: int) -> Generator[Item]:
    """Yield `items`, of which a thread produces up to `depth` before they are asked for.

    What producing raises is raised here, in its place. Close the result early to stop the thread: it ends with the item
    that it is producing.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        pending: deque[Future[Item]] = deque(thread.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := pending.popleft().result()) is not _END:
                pending.append(thread.submit(next, items, _END))
                yield item
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def behind(consume: Callable[[Item], None], *, depth: int) -> Iterator[Callable[[Item], None]]:
    """Give a function that hands an item to a thread, which consumes the items in order.

    The function waits while `depth` items are not consumed. What `consume` raises is raised by a later call of the
    function, or at the end; all items are consumed by then, unless something was raised.
    """
    pending: deque[Future[None]] = deque()

    def hand_over(item: Item) -> None:
        while len(pending) >= depth:
            pending.popleft().result()
        pending.append(thread.submit(consume, item))

    with ThreadPoolExecutor(1, thread_name_prefix="behind") as thread:
        try:
            yield hand_over
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
