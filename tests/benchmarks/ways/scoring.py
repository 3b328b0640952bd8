"""Ours: what `scoring.nightly.score` does between opening the session and staging the parts.

Timed: listing the partition, footers, contract, splits, scoring on Spark, and accounting for all rows (keys unique).
Not timed: resolving aliases and downloading model files from MLflow, and the run record. They cost the same for every
size of partition; the case `fixed_cost` measures them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scoring import settings
from scoring.accounting import account
from scoring.deployment import Deployment
from scoring.models.base import Files, FrozenModel
from scoring.plan import make_plan
from scoring.registry import Registry
from scoring.spark.score import score_on_spark
from scoring.spark.session import open_session
from tests.benchmarks.cases import Case, Way
from tests.benchmarks.cluster import running_cluster
from tests.benchmarks.deployments import write
from tests.benchmarks.places import Places
from tests.benchmarks.ways import Score


class Resolved(Registry):
    """A registry that has resolved a deployment's aliases before."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self._frozen = super().freeze(deployment)

    def freeze(
        self,
        deployment: Deployment,  # noqa: ARG002 - the one that was resolved
        versions: Mapping[str, int] | None = None,  # noqa: ARG002 - as above
    ) -> tuple[dict[str, FrozenModel], dict[str, Files]]:
        """Return what was resolved."""
        return self._frozen


@contextmanager
def opened(case: Case, places: Places, cores: int) -> Iterator[Score]:
    """Start Spark as a job does: in local mode, or on a standalone cluster of as many executors as the case says."""
    deployment = write(case, places, output=places.output(case, Way.SCORING))
    cluster = running_cluster(case.executors) if case.executors else nullcontext(f"local[{cores}]")
    with cluster as master:
        os.environ[settings.SPARK_MASTER_VARIABLE] = master
        session = open_session(f"bench {case.name}", deployment.resources)
        registry = Resolved(deployment)

        def score(value: str, _: Path) -> dict[str, float]:
            start = time.perf_counter()
            plan, files = make_plan(deployment, value, registry=registry)
            plan = plan.with_parallelism(session.sparkContext.defaultParallelism)
            planned = time.perf_counter()
            results = score_on_spark(session, plan, run_id=f"bench-{value}", files=files)
            scored = time.perf_counter()
            account(plan, results)
            accounted = time.perf_counter()
            return {
                "plan_s": planned - start,
                "spark_s": scored - planned,
                "account_s": accounted - scored,
                "splits": len(results),
                "model_loads": sum(result.model_loads for result in results),
                **_summed([asdict(result.timings) for result in results]),
            }

        try:
            yield score
        finally:
            session.stop()


def _summed(timings: list[dict[str, Any]]) -> dict[str, float]:
    """Return the seconds of all splits together; those of different workers overlap."""
    total: Counter[str] = Counter()
    for timing in timings:
        total.update({name: value for name, value in timing.items() if name.endswith("_s")})
    return {f"workers_{name}": float(value) for name, value in total.items()}
