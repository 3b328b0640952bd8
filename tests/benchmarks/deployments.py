"""Our deployment of a case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoring.deployment import Deployment
from scoring.registry import CHAMPION
from scoring.testing import write_deployment
from tests.benchmarks.cases import KEY, PARTITION, PREDICT_ROWS, Case, Graph, registered_name
from tests.benchmarks.places import Places


def write(case: Case, places: Places, *, output: Path) -> Deployment:
    """Write the deployment's folder and load it."""
    return write_deployment(
        places.deployments / f"bench_{case.name}",
        input={"path": str(places.data(case.dataset)), "partition": PARTITION, "keys": [KEY]},
        output={"path": str(output)},
        score=_steps(case),
    )


def _steps(case: Case) -> dict[str, Any]:
    steps = [_step(name) for name in case.models]
    match case.graph:
        case Graph.SINGLE:
            return steps[0]
        case Graph.MEAN:
            return {"ensemble": {"combine": "mean", "members": dict(zip(case.models, steps, strict=True))}}
        case Graph.CHAIN:
            # Every model's output is called `score`: it replaces the one before, after having been read.
            return {"pipeline": [steps[0], *({**step, "replace": True} for step in steps[1:])]}


def _step(name: str) -> dict[str, Any]:
    size = {"batch_size": PREDICT_ROWS[name]} if name in PREDICT_ROWS else {}
    return {"model": f"models:/{registered_name(name)}@{CHAMPION}", **size}
