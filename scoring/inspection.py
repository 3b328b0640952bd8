"""A sample of what leaves one step of a run's graph, for people who look for the reason of a score."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.deployment import Deployment, path_of, places
from scoring.errors import ConfigurationError, listed
from scoring.graph.compile import graph_source, readers, without_members
from scoring.local import read_rows, step_output
from scoring.nightly import PLAN_ARTIFACT
from scoring.registry import Registry
from scoring.runs import RunRecord, RunStore

INSPECTED_ROWS: Final = 1_000
"""About how many rows of a partition are looked at, chosen by a hash of their keys."""
FOLDER: Final = "inspect"
"""Of the run's artifacts."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The sampled rows as they leave a step."""

    path: str
    """Of the step."""
    rows: pa.Table
    artifact: str
    """Where the run record keeps them, as Parquet."""


def step_paths(deployment: Deployment) -> list[str]:
    """Return the paths of all steps, outermost first: `score.pipeline.1.ensemble.members.trees`."""
    return [path_of(keys) for keys, _ in places(deployment.score)]


def check_path(deployment: Deployment, path: str) -> None:
    """Check that a deployment can be inspected at a path.

    Raises:
        ConfigurationError: it has no such step, or its input is not files.
    """
    known = step_paths(deployment)
    if path not in known:
        close = get_close_matches(path, known, n=1)
        raise ConfigurationError(
            f"deployment {deployment.name!r} has no step {path!r}",
            f"one of {listed(known)}",
            repr(path),
            f"Did you mean {close[0]!r}?" if close else "",
        )
    if deployment.input.path is None:
        raise ConfigurationError(
            f"steps of {deployment.name!r} cannot be inspected", "an input of files", "a query, whose rows are gone"
        )


def inspect(deployment: Deployment, run: RunRecord, path: str) -> Inspection:
    """Run sampled rows of a run's partition through its graph once more, up to a step, and keep what leaves it.

    Rows, model versions and members are those of the run, so that the values are those of the run. Runs on the driver,
    on the CPU.

    Raises:
        ConfigurationError: there is no such step, or no sampled row reached it.
        ScoringError: as in scoring.
    """
    check_path(deployment, path)
    store = RunStore()
    models, files = Registry().freeze(deployment, run.model_versions)
    plan = store.read_json(run.run_id, PLAN_ARTIFACT)
    graph = graph_source(deployment, models)
    graph = without_members(graph, plan["dropped"]) or graph
    rows = read_rows(deployment, [run.partition], models=readers(deployment.score, models), limit=INSPECTED_ROWS)
    found = step_output(graph, rows, path, files=files)
    if found is None:
        raise ConfigurationError(
            f"no sampled row of partition {run.partition!r} reached step {path!r}",
            f"one of {rows.num_rows} rows",
            "none: other branches took them, or the member was dropped",
        )
    artifact = f"{FOLDER}/{path}.parquet"
    sink = pa.BufferOutputStream()
    pq.write_table(found, sink)
    store.put(run.run_id, artifact, sink.getvalue().to_pybytes())
    return Inspection(path, found, artifact)
