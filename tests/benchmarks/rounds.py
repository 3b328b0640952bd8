"""Runs the ways of a case in turns, and keeps what they measured and how they failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.benchmarks import data, models
from tests.benchmarks.cases import OURS, Case, Way
from tests.benchmarks.check import check
from tests.benchmarks.measure import Measurement, WayError, measure
from tests.benchmarks.places import Places


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often and with what cases are run."""

    places: Places
    cores: int
    scale: float
    repeat: int
    """Runs of the limit and of ours."""
    repeat_others: int
    say: Callable[[str], None]
    """Takes a line about the progress."""
    failures: list[str] = field(default_factory=list)
    """One sentence per way that failed."""

    def run(self, case: Case, ways: Sequence[Way]) -> dict[Way, list[Measurement]]:
        """Run all ways once, then again; a way that failed is not run again, and has no result."""
        self.say(f"{case.name}: data and models")
        data.make(case.dataset, self.places)
        models.prepare(case, self.places)
        data.read_once(case.dataset, self.places)
        measured: dict[Way, list[Measurement]] = {way: [] for way in ways}
        for repetition in range(1, max(self.repeat, self.repeat_others) + 1):
            for way in [way for way in measured if repetition <= self._repeats(way)]:
                try:
                    found = self._once(case, way)
                except WayError as error:
                    del measured[way]
                    self.failures.append(str(error))
                    self.say(f"failed: {error}")
                else:
                    measured[way].append(found)
                    self.say(f"{case.name} {repetition}/{self._repeats(way)} {way}: {found.seconds:.2f} s")
        shutil.rmtree(self.places.outputs(case), ignore_errors=True)
        if case.is_temporary:
            data.delete(case.dataset, self.places)
        return measured

    def _repeats(self, way: Way) -> int:
        return self.repeat if way in OURS else self.repeat_others

    def _once(self, case: Case, way: Way) -> Measurement:
        try:
            found = measure(case, way, self.places, cores=self.cores, scale=self.scale)
            if not case.is_job:
                check(case, way, self.places)
        finally:
            # The limit's predictions stay until the others were compared with them.
            if way is not Way.LIMIT:
                shutil.rmtree(self.places.output(case, way), ignore_errors=True)
        return found
