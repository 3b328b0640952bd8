"""Which nights a model learns next. Pure: the model is a fold over all labelled nights in the order of partitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Night:
    """One labelled partition."""

    partition: str
    digest: str
    """Of its rows and labels, as far as listing the files tells; another digest is another night."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A night that was learned from."""

    night: Night
    version: int
    """Of the model after the night; that before it where the update was rejected."""
    run_id: str
    """Record of the lesson."""


@dataclass(frozen=True, slots=True)
class Course:
    """What stays of earlier lessons, and what is learned after them."""

    kept: tuple[Lesson, ...]
    nights: tuple[Night, ...]
    """In the order of their partitions."""
    repeated: str | None = None
    """The partition from which lessons are repeated, since it came late or has changed; None if none is."""


def plan_course(lessons: Sequence[Lesson], nights: Sequence[Night]) -> Course:
    """Return which lessons stay and which nights follow, so that the model is what all nights in order make of it.

    A night that came late, or that has changed since it was learned, takes its place in the order: what was learned
    from that place on is learned again. A night that was learned and is not there any more stays learned.

    Args:
        lessons: the chain so far, in the order of partitions.
        nights: all nights that are to be looked at, in any order; those before the first one of them are settled.
    """
    learned = {lesson.night.partition: lesson.night for lesson in lessons}
    newest = max(learned, default="")
    odd = [night.partition for night in nights if night.partition <= newest and learned.get(night.partition) != night]
    repeated = min(odd, default=None)
    kept = tuple(lesson for lesson in lessons if repeated is None or lesson.night.partition < repeated)
    last = kept[-1].night.partition if kept else ""
    return Course(kept, tuple(sorted(night for night in nights if night.partition > last)), repeated)
