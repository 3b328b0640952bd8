"""What a run took, kept with its record and compared with the runs before. Runs on the driver, when all is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from scoring.plan import Plan
from scoring.results import SplitResult
from scoring.runs import BACKFILL, RunState, RunStore
from scoring.throughput.page import PAGE, render
from scoring.throughput.report import ARTIFACT, PARTS, RunReport, SplitReport, Totals
from scoring.throughput.slowness import slow_against, usual_of

LOOKED_AT: Final = 50
"""Runs under the same conditions among which those with about as many rows are looked for."""


def keep_report(
    store: RunStore,
    run_id: str,
    plan: Plan,
    scored: Sequence[SplitResult],
    *,
    resumed: Sequence[SplitResult],
    seconds: float,
    master: str,
) -> RunReport:
    """Keep the report of a run as metrics, document and page, and warn of what an operator should look at.

    Args:
        store: where the run's record is.
        run_id: the run.
        plan: what was scored.
        scored: splits that this attempt has scored.
        resumed: splits that it took over.
        seconds: how long scoring them took, as the driver saw it.
        master: of Spark; a laptop is not compared with a cluster.
    """
    run = store.get(run_id)
    splits = sorted([*_measured(scored), *_measured(resumed, is_resumed=True)], key=lambda split: split.split)
    totals = Totals.of(splits, seconds=seconds)
    devices = sorted({split.device for split in splits})
    conditions = _conditions(plan, devices, master=master, trigger=run.tags.get("trigger", ""))
    usual = usual_of(totals, _earlier(store, run_id, plan.deployment.name, conditions))
    slow = slow_against(totals, usual)
    if slow is not None:
        store.warn(run_id, slow)
    store.log_metrics(run_id, totals.metrics())
    store.set_tags(run_id, {"conditions": conditions})
    report = RunReport(
        deployment=plan.deployment.name,
        partition=plan.partition.value,
        run_id=run_id,
        totals=totals,
        devices=tuple(devices),
        conditions=conditions,
        usual=usual,
        warnings=store.get(run_id).warnings,
        splits=tuple(splits),
    )
    store.put_json(run_id, ARTIFACT, report.to_json())
    store.put(run_id, PAGE, render(report))
    return report


def _measured(results: Sequence[SplitResult], *, is_resumed: bool = False) -> Iterator[SplitReport]:
    for result in results:
        yield SplitReport(
            split=result.split,
            rows=result.rows_out,
            quarantined=result.rows_quarantined,
            **{name: getattr(result.timings, name) for name in ("wall_s", *PARTS)},
            model_loads=result.model_loads,
            batch_rows=result.batch_rows,
            peak_rss_mb=result.peak_rss_mb,
            device=result.device,
            worker=result.worker,
            is_resumed=is_resumed,
        )


def _conditions(plan: Plan, devices: Sequence[str], *, master: str, trigger: str) -> str:
    """Say under which conditions a run was scored; nights of a backfill share the machine with each other."""
    resources = plan.deployment.resources
    kinds = sorted({device.partition(":")[0] for device in devices})
    needs = f"cpus_per_task {resources.cpus_per_task}, gpus_per_task {resources.gpus_per_task}"
    return ", ".join([*kinds, needs, f"Spark {master}", *([BACKFILL] if trigger == BACKFILL else [])])


def _earlier(store: RunStore, run_id: str, deployment: str, conditions: str) -> Iterator[Totals]:
    """Yield what earlier runs took that were scored to their end under the same conditions, the newest first."""
    for run in store.find(deployment, limit=LOOKED_AT, conditions=conditions):
        totals = Totals.from_metrics(run.metrics)
        if totals is not None and run.run_id != run_id and run.state not in (RunState.RUNNING, RunState.FAILED):
            yield totals
