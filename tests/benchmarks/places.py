"""Where a benchmark keeps what it makes: below `$SCORING_HOME/bench`."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scoring import settings
from tests.benchmarks.cases import PARTITION, Case, Dataset, Way

ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout."""


@dataclass(frozen=True, slots=True)
class Places:
    """Folders and files of the benchmark."""

    bench: Path

    @staticmethod
    def of_home() -> Places:
        """Return those of `$SCORING_HOME`."""
        return Places(settings.home() / "bench")

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Give whether no other benchmark uses these folders, and keep others out for the time inside."""
        self.bench.mkdir(parents=True, exist_ok=True)
        with (self.bench / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @property
    def results(self) -> Path:
        """The measured numbers."""
        return self.bench / "results.json"

    @property
    def environment(self) -> Path:
        """Machine, versions and command of the results."""
        return self.bench / "environment.json"

    @property
    def deployments(self) -> Path:
        """Folders of our deployments."""
        return self.bench / "deployments"

    def data(self, dataset: Dataset) -> Path:
        """The input of a deployment: partitions of one dataset."""
        return self.bench / "data" / dataset.folder

    def partition(self, dataset: Dataset, value: str) -> Path:
        """Files of one partition."""
        return self.data(dataset) / f"{PARTITION}={value}"

    def model(self, name: str) -> Path:
        """Native file of a model."""
        return self.bench / "models" / name

    def pyfunc(self, case: Case) -> Path:
        """MLflow model of a case that no flavor covers."""
        return self.bench / "pyfunc" / case.name

    def output(self, case: Case, way: Way) -> Path:
        """What a way wrote: partitions, like the input."""
        return self.outputs(case) / way

    def outputs(self, case: Case) -> Path:
        """What all ways wrote."""
        return self.bench / "output" / case.name

    def log(self, case: Case, way: Way) -> Path:
        """What a process said."""
        return self.bench / "logs" / f"{case.name}-{way}.log"
