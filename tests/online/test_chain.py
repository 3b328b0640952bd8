"""The chain of lessons is a fold: whatever comes when, the model is what all nights in order make of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from scoring.online.chain import Lesson, Night, plan_course

EVENTS = st.lists(
    st.dictionaries(st.integers(1, 9), st.integers(0, 2), max_size=4).map(
        lambda found: {f"2024-01-{day:02d}": str(content) for day, content in found.items()}
    ),
    max_size=8,
)
"""What arrives before each call: contents by partition; a partition that comes again has been rewritten."""


def take(lessons: list[Lesson], nights: dict[str, str]) -> list[Lesson]:
    """Do what a call would do; the version stands for all that the model has learned, in order."""
    course = plan_course(lessons, [Night(partition, content) for partition, content in nights.items()])
    taken = list(course.kept)
    for night in course.nights:
        taken.append(Lesson(night, hash((*(lesson.night for lesson in taken), night)), "run"))
    return taken


@given(EVENTS)
def test_any_order_of_arrival_ends_in_the_order_of_partitions(events: list[dict[str, str]]) -> None:
    lessons: list[Lesson] = []
    present: dict[str, str] = {}
    for arrived in events:
        present |= arrived
        lessons = take(lessons, present)
    assert lessons == take([], present)
    assert [lesson.night for lesson in lessons] == sorted(Night(*item) for item in present.items())


@given(EVENTS)
def test_nothing_new_is_nothing_to_learn(events: list[dict[str, str]]) -> None:
    present = {partition: content for arrived in events for partition, content in arrived.items()}
    lessons = take([], present)
    course = plan_course(lessons, [Night(*item) for item in present.items()])
    assert (course.kept, course.nights, course.repeated) == (tuple(lessons), (), None)


def test_a_night_that_is_gone_stays_learned_and_settled_ones_are_not_looked_at() -> None:
    lessons = take([], {"2024-01-01": "a", "2024-01-02": "b", "2024-01-03": "c"})
    course = plan_course(lessons, [Night("2024-01-03", "c"), Night("2024-01-04", "d")])
    assert course.kept == tuple(lessons)
    assert course.nights == (Night("2024-01-04", "d"),)


def test_a_changed_night_is_learned_again_with_all_after_it() -> None:
    lessons = take([], {"2024-01-01": "a", "2024-01-02": "b", "2024-01-03": "c"})
    course = plan_course(lessons, [Night("2024-01-01", "a"), Night("2024-01-02", "B"), Night("2024-01-03", "c")])
    assert course.kept == tuple(lessons[:1])
    assert course.nights == (Night("2024-01-02", "B"), Night("2024-01-03", "c"))
    assert course.repeated == "2024-01-02"
