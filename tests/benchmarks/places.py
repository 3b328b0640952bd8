"""Where a benchmark keeps what it makes: below `$SCORING_HOME/bench`."""

from __future__ import annotations

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
