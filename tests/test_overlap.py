from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from scoring.overlap import ahead, behind

DEADLINE_S = 30


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(100)), depth=3)) == list(range(100))
    assert list(ahead(iter(()), depth=2)) == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_as_many_items_as_asked_are_produced_before_they_are_taken(depth: int) -> None:
    produced = threading.Semaphore(0)
    count = 0

    def items() -> Iterator[int]:
        nonlocal count
        for number in range(20):
            count += 1
            produced.release()
            yield number

    with closing(ahead(items(), depth=depth)) as taken:
        assert next(taken) == 0
        for _ in range(depth + 1):
            assert produced.acquire(timeout=DEADLINE_S)
        assert count == depth + 1, "no more than asked: each item is a batch of rows in memory"
        assert next(taken) == 1


def test_what_producing_raises_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("second")

    taken = ahead(items(), depth=2)
    assert next(taken) == 1
    with pytest.raises(ZeroDivisionError, match="second"):
        next(taken)


def test_closing_early_ends_the_thread() -> None:
    before = threading.active_count()
    with closing(ahead(iter(range(1000)), depth=2)) as taken:
        next(taken)
    assert threading.active_count() == before


def test_items_are_consumed_in_order_and_all_by_the_end() -> None:
    seen: list[int] = []
    with behind(seen.append, depth=2) as hand_over:
        for number in range(50):
            hand_over(number)
    assert seen == list(range(50))


def test_the_producer_waits_for_a_slow_consumer() -> None:
    gate, handed = threading.Event(), []

    def consume(_: int) -> None:
        assert gate.wait(DEADLINE_S)

    def produce() -> None:
        with behind(consume, depth=1) as hand_over:
            for number in range(3):
                hand_over(number)
                handed.append(number)

    thread = threading.Thread(target=produce)
    thread.start()
    thread.join(0.2)
    assert handed == [0], "the second waits until the first is consumed"
    gate.set()
    thread.join(DEADLINE_S)
    assert handed == [0, 1, 2]


def test_what_consuming_raises_reaches_the_producer() -> None:
    def consume(number: int) -> None:
        if number == 1:
            raise OSError("disk full")

    handed = []
    with pytest.raises(OSError, match="disk full"), behind(consume, depth=1) as hand_over:
        for number in range(100):
            hand_over(number)
            handed.append(number)
    assert len(handed) < 5


def test_the_producers_own_error_wins() -> None:
    def consume(_: int) -> None:
        raise OSError("disk full")

    with pytest.raises(ZeroDivisionError), behind(consume, depth=5) as hand_over:
        hand_over(1)
        raise ZeroDivisionError
